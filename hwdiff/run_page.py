"""The page of a run, its manifest, and what of it may be published."""

import json
import os
import shutil
from pathlib import Path

import nbformat
import torch
from jinja2 import Environment, FileSystemLoader

from hwdiff.errors import HwdiffError
from hwdiff.files import replacing
from hwdiff.manifest import environment
from hwdiff.stage import shown

PAGE, MANIFEST = "index.html", "manifest.json"


def write_manifest(run, profile, names):
    """Write manifest.json of the run in the folder `run`: parameters, inputs, outputs, times and all else that it depends on."""
    stages = {name: _read(run / "stages" / f"{name}.json", {"status": "not run"}) for name in names}
    manifest = {
        "profile": profile,
        "seeds": {name: stage["parameters"]["seed"] for name, stage in stages.items() if "parameters" in stage},
        "environment": environment("cuda" if torch.cuda.is_available() else "cpu"),
        "stages": stages,
    }
    _write(run / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))


def write_page(run):
    """Write index.html of the run in the folder `run` from its manifest and what its stages listed."""
    manifest = _read(run / MANIFEST, None)
    if manifest is None:
        raise HwdiffError(f"{run}: no folder of a run (it has no {MANIFEST}); hwdiff reproduce makes one")
    stages = [{"name": name, **stage, "shown": _shown(run, name)} for name, stage in manifest["stages"].items()]
    template = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template("run_page.html")
    _write(run / PAGE, template.render(manifest=manifest, stages=stages, value=shown, exists=lambda file: (run / file).exists()))


def _shown(run, name):
    """The figures and tables of a stage, in order, each once."""
    found = []
    for output in _read(run / "stages" / f"{name}.outputs.json", []):
        if output["file"].endswith((".svg", ".csv")) or output["kind"] == "file":
            continue
        table = _read(run / output["file"], None) if output["file"].endswith(".json") else None
        found.append({**output, "table": table, "left out": not (run / output["file"]).exists()})
    return found


def publish(run, out):
    """Copy what may be published of the run in the folder `run` into the folder `out`: page, manifest, figures, tables, notebooks.

    Whatever shows people's ink or texts is left out, and a notebook that shows any of it. Large files, such as checkpoints, stay behind.
    Raises HwdiffError when the run is not finished, or a file tells where on this machine it was made.
    """
    run, out = Path(run), Path(out)
    manifest = _read(run / MANIFEST, None)
    if manifest is None:
        raise HwdiffError(f"{run}: no folder of a run (it has no {MANIFEST}); hwdiff reproduce makes one")
    unfinished = [name for name, stage in manifest["stages"].items() if stage["status"] != "done"]
    if unfinished:
        raise HwdiffError(f"{run}: {', '.join(unfinished)} not done; only whole runs are published")
    copied, left_out = [], []
    for name in manifest["stages"]:
        outputs = _read(run / "stages" / f"{name}.outputs.json", [])
        closed = [output["file"] for output in outputs if output["people's ink"]]
        left_out += closed + ([f"notebooks/{name}.ipynb"] if closed else [])
        copied += [output["file"] for output in outputs if output["kind"] != "file" and output["file"] not in closed]
        copied += [f"stages/{name}.outputs.json"] + ([] if closed else [f"notebooks/{name}.ipynb"])
    for folder in ("figures", "tables", "timings", "notebooks", "stages"):
        shutil.rmtree(out / folder, ignore_errors=True)
    for file in dict.fromkeys(copied):
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".ipynb"):
            _write(out / file, nbformat.writes(_without_places(nbformat.read(run / file, as_version=4))) + "\n")
        else:
            shutil.copyfile(run / file, out / file)
    for stage in manifest["stages"].values():
        stage["outputs"] = {file: digest for file, digest in stage["outputs"].items() if (out / file).exists()}
        stage["inputs"] = {os.path.basename(path): digest for path, digest in stage["inputs"].items()}
        stage["parameters"] = {key: _name_only(value) for key, value in stage["parameters"].items()}
    manifest["left out, since they show people's ink"] = sorted(set(left_out))
    _write(out / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
    write_page(out)
    _check_places(out, [*dict.fromkeys(copied), MANIFEST, PAGE], run)
    return sorted(set(left_out))


def _name_only(value):
    return os.path.basename(value) if isinstance(value, str) and os.path.isabs(value) else value


def _without_places(notebook):
    """A notebook without papermill's notes, which hold paths and times."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    return notebook


def _check_places(out, files, run):
    places = {str(Path.home()), str(Path.cwd()), str(run.resolve())} - {"/", "/root"}
    for file in files:
        content = (out / file).read_bytes()
        for place in places:
            if place.encode() in content:
                raise HwdiffError(f"{out / file}: names {place}, a folder of this machine; it must not be published")


def _read(path, default):
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return default


def _write(path, text):
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
