"""The page of a run, its manifest, and what of it may be published."""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import nbformat
from jinja2 import Environment, FileSystemLoader

from hwdiff.suite.outputs import shown
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write, sha256_of

PAGE, MANIFEST = "index.html", "manifest.json"
FOLDERS = ("figures", "tables", "timings", "notebooks")


def write_manifest(run, profile, names):
    """Write manifest.json of the run in the folder `run`: for each notebook its parameters, inputs, outputs, environment, times."""
    records = {name: read_json(run / "records" / f"{name}.json", {"status": "not run"}) for name in names}
    _write(run / MANIFEST, json.dumps({"profile": profile, "notebooks": records}, indent=1, ensure_ascii=False))


def write_page(run):
    """Write index.html of the run in the folder `run` from its manifest."""
    manifest = _manifest(run)
    records = [{"name": name, **record, "shown": _shown(run, record)} for name, record in manifest["notebooks"].items()]
    made_on = next((record["environment"] for record in records if "environment" in record), None)
    template = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template("page.html")
    text = template.render(manifest=manifest, records=records, environment=made_on, value=shown, exists=lambda file: (run / file).exists())
    _write(run / PAGE, text)


def _manifest(run):
    manifest = read_json(Path(run) / MANIFEST, None)
    if manifest is None:
        raise HwdiffError(f"{run}: no folder of a run (it has no {MANIFEST}); hwdiff reproduce makes one")
    return manifest


def _shown(run, record):
    """The figures and tables of a notebook, in order, each once."""
    found = []
    for output in record.get("listed", []):
        if output["file"].endswith((".svg", ".csv")) or output["kind"] == "file":
            continue
        table = read_json(run / output["file"], None) if output["file"].endswith(".json") else None
        if table:
            table["rows"] = [_with_spreads(row) for row in table["rows"]]
        found.append({**output, "table": table, "left out": not (run / output["file"]).exists()})
    return found


def changed_files(run, record):
    """Those of the files that a notebook's record lists which are no longer what it wrote."""
    return [file for file, sha256 in record["outputs"].items() if not (run / file).exists() or sha256_of(run / file) != sha256]


def _with_spreads(row):
    """A table's row for a person: what has a column of means and one of standard deviations has one of both."""
    merged = {}
    for key, number in row.items():
        name, part = key.rsplit(maxsplit=1) if key.endswith(("; mean", "; sd", ", mean", ", sd")) else (key, "")
        if part == "sd":
            merged[name[:-1]] += f" ± {shown(number)}" if number is not None else ""
        else:
            merged[name[:-1] if part else name] = shown(number)
    return merged


def publish(run, out):
    """Copy what may be published of the run in the folder `run` into the folder `out`: page, manifest, figures, tables, notebooks.

    Whatever shows people's ink or texts is left out, and a notebook that shows any of it. Large files, such as checkpoints, stay behind.
    What was published in `out` before is replaced; other files there stay. Returns what was left out.
    Raises HwdiffError, and publishes nothing, when a notebook is not done or its files are not what it wrote, when a file tells where on this
    machine it was made, or when `out` is no folder to publish in.
    """
    run, out = Path(run).resolve(), Path(out).resolve()
    names = list(_manifest(run)["notebooks"])
    # The manifest may be older than the records: one that was begun again has its marks no more.
    records = {name: read_json(run / "records" / f"{name}.json", {"status": "not run"}) for name in names}
    for name, record in records.items():
        if record["status"] != "done":
            raise HwdiffError(f"{run}: {name} is not done ({record['status']}); only whole runs are published")
        if changed := changed_files(run, record):
            raise HwdiffError(f"{run / changed[0]}: is not what {name} wrote; run the suite again")
    if out == run or run in out.parents or (any((out / folder).exists() for folder in FOLDERS) and not (out / MANIFEST).exists()):
        raise HwdiffError(f"{out}: holds other things than what was published before; choose a folder of its own")
    with tempfile.TemporaryDirectory(prefix=".publishing-", dir=_existing(out.parent)) as temporary:
        fresh = Path(temporary)
        left_out = _copy(run, records, fresh)
        _write(fresh / MANIFEST, json.dumps(_published_manifest(run, records, fresh, left_out), indent=1, ensure_ascii=False))
        write_page(fresh)
        _check_places(fresh, run)
        out.mkdir(exist_ok=True)
        for folder in FOLDERS:
            shutil.rmtree(out / folder, ignore_errors=True)
        for path in fresh.iterdir():
            os.replace(path, out / path.name)
    return left_out


def _existing(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _copy(run, records, out):
    """Copy figures, tables, times and notebooks that show no people's ink; returns what does."""
    left_out = []
    for name, record in records.items():
        notebook = f"notebooks/{name}.ipynb"
        closed = [output["file"] for output in record["listed"] if output["people's ink"]]
        left_out += [*closed, notebook] if closed else []
        for file in dict.fromkeys(output["file"] for output in record["listed"] if output["kind"] != "file" and output["file"] not in closed):
            _existing((out / file).parent)
            shutil.copyfile(run / file, out / file)
        if not closed:
            _write(out / notebook, nbformat.writes(_without_places(nbformat.read(run / notebook, as_version=4))) + "\n")
    return sorted(set(left_out))


def _published_manifest(run, records, out, left_out):
    published = {}
    for name, record in records.items():
        files = [file for file in record["outputs"] if (out / file).exists()]
        published[name] = {
            **record,
            "outputs": {file: sha256_of(out / file) for file in files},
            "inputs": {_name_only(path): sha256 for path, sha256 in record["inputs"].items()},
            "parameters": {key: _name_only(value) for key, value in record["parameters"].items()},
        }
    return {"profile": _manifest(run)["profile"], "notebooks": published, "left out, since they show people's ink": left_out}


def _name_only(value):
    return os.path.basename(value) if isinstance(value, str) and os.path.isabs(value) else value


def _without_places(notebook):
    """A notebook without what tells of folders and times: papermill's notes, and paths among the parameters."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = re.sub(r'"[^"\n]*/([^"/\n]*)"', r'"\1"', cell.source)
    return notebook


def _check_places(out, run):
    places = {str(place).encode() for place in (Path.home(), Path.cwd(), run)} - {b"/"}
    for path in out.rglob("*"):
        if path.is_file() and (place := next((place for place in places if place in path.read_bytes()), None)):
            raise HwdiffError(f"{path.relative_to(out)}: names {place.decode()}, a folder of this machine; it must not be published")


def read_json(path, default):
    """The content of a JSON file; `default` where there is none, or it is not whole."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return default


def _write(path, text):
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
