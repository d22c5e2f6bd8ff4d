"""The page of a run, its manifest, and what of it may be published."""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import nbformat
from jinja2 import Environment, FileSystemLoader

from hwdiff.diffusion.generate import writing_settings
from hwdiff.model.checkpoint import load_model
from hwdiff.suite.notebook_html import notebook_html
from hwdiff.suite.outputs import shown, with_spreads
from hwdiff.suite.verdicts import PAPER_PARAMETERS, RULE, verdicts
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import json_fingerprint, sha256_of, write_json, write_text
from hwdiff.utils.json_values import is_file_name, misfit, parse_json

PAGE, MANIFEST = "index.html", "manifest.json"
_TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
FOLDERS = ("figures", "tables", "timings", "notebooks")
PEOPLES = ("source", "photo")  # parameters that may name people's files, whose names are not published
UNNAMED = "not published"
_PUBLISHING = ".publishing-"  # what the names of folders begin with that a killed process leaves
# Records of notebooks, of any state and of one that is done; and tables. Files stay below the run's folder.
_FILES = {"*": str}
_OUTPUT = {"kind": str, "file": is_file_name, "title": str, "of_people": bool, "cell?": int, "takeaway?": str}
_ENVIRONMENT = {
    "device": str,
    "processor": str,
    "cores": (int, None),
    "packages": {"torch": str},
    "code?": ({"commit": str, "changed": bool}, None),
}
_RECORD = {
    "status": str,
    **dict.fromkeys(("key?", "state?", "code?", "title?", "about?", "error?"), str),
    "seconds?": float,
    "parameters?": {"*": object},
    "inputs?": _FILES,
    "outputs?": _FILES,
    "listed?": [_OUTPUT],
    "environment?": _ENVIRONMENT,
}
_MANIFEST = {"profile": str, "notebooks": {"*": _RECORD}, "about?": {"network": str, "data": str}}
_DONE = {"outputs": _FILES, "inputs": _FILES, "parameters": {"*": object}, "listed": [_OUTPUT]}
_TABLE = {"rows": [{"*": object}], "paper?": {"*": {"*": object}}, "notes?": [str]}


def write_manifest(run: Path, profile: str, names: Iterable[str]) -> None:
    """Write manifest.json of the run in the folder `run`.

    It holds the record of each notebook in `names`: parameters, inputs, outputs, environment and times.
    """
    manifest = {"profile": profile, "notebooks": _records(run, names)}
    write_json(run / MANIFEST, manifest)


def write_page(run: Path) -> None:
    """Write index.html of the run in the folder `run` from its manifest.

    Raises HwdiffError when there is no manifest, or one of an older version.
    """
    manifest = _manifest(run)
    records = [
        {**record, "name": name, "shown": _shown(run, record)}
        for name, record in manifest["notebooks"].items()
    ]
    done = [record for record in records if "environment" in record]
    text = _TEMPLATES.get_template("page.html").render(
        manifest=manifest,
        records=records,
        environments=list({_told(record["environment"]): record["environment"] for record in done}.values()),
        seconds=sum(record["seconds"] for record in done if "seconds" in record),
        about=manifest.get("about") or _about(manifest),
        verdicts=verdicts(),
        rule=RULE,
        shown=shown,
        quoted=repr,
        exists=lambda file: (run / file).is_file(),
        content=lambda file: (run / file).read_text(encoding="utf-8", errors="replace"),
    )
    write_text(run / PAGE, text)


def _told(environment):
    """What the page tells of an environment."""
    told = [environment[name] for name in ("device", "processor", "cores")]
    return (*told, environment["packages"]["torch"], str(environment.get("code")))


def _records(run, names):
    return {name: read_record(run / "records" / f"{name}.json") or {"status": "not run"} for name in names}


def read_record(path: Path) -> dict:
    """The record of a notebook; {} where there is none, or it is not whole."""
    record = read_json(path, None)
    return {} if misfit(record, _RECORD) or _outside(record) else record


def _outside(record):
    """The outputs in a record that are no files below the run's folder."""
    return [file for file in record.get("outputs", {}) if not is_file_name(file)]


def _manifest(run):
    manifest = read_json(run / MANIFEST, None)
    if not isinstance(manifest, dict):
        raise HwdiffError(f"{run}: no folder of a run (it has no {MANIFEST}); hwdiff reproduce makes one")
    if "notebooks" not in manifest:
        again = f"hwdiff reproduce --profile {manifest.get('profile', 'smoke')} --out {run}"
        raise HwdiffError(
            f"{run / MANIFEST}: has {list(manifest)} but no 'notebooks', so an older version of hwdiff "
            f"made it; run the suite again with {again}"
        )
    wrong = misfit(manifest, _MANIFEST)
    if not wrong:
        names = [name for name in manifest["notebooks"] if Path(name).name != name]
        outside = [*names, *(file for one in manifest["notebooks"].values() for file in _outside(one))]
        wrong = f"{outside[0]!r} is not in the folder" if outside else None
    if wrong:
        advice = f"delete it, and run the suite again with --out {run}"
        raise HwdiffError(f"{run / MANIFEST}: damaged ({wrong}); {advice}")
    return manifest


def _about(manifest):
    """What the lines of a run were written by and taken from: {"network", "data"}, for its page."""
    parameters = [record.get("parameters", {}) for record in manifest["notebooks"].values()]
    checkpoints = {some["checkpoint"] for some in parameters if isinstance(some.get("checkpoint"), str)}
    networks = []
    for checkpoint in sorted(checkpoints):
        if checkpoint == "trained":
            networks.append("the network that notebook 02 of this run trained")
            continue
        try:
            network = load_model(checkpoint, "cpu")
        except HwdiffError:  # a page is shown without it
            networks.append(f"“{_name_only(checkpoint)}”, which is no longer there")
            continue
        count = sum(weight.numel() for weight in network.parameters())
        training, step = network.metadata.get("training", {}), network.metadata.get("step")
        guided = training.get("guided_attention", 0)
        if step is None:
            trained = "a checkpoint of the authors' program"
        elif "levels" in writing_settings(network):
            evaluations = len(writing_settings(network)["levels"])
            trained = f"a student that writes in {evaluations} steps, {step:,} batches of distillation"
        else:
            before = " from earlier weights" if training.get("init") else ""
            trained = f"{step:,} steps of training{before}"
        taught = f"guided attention of weight {guided:g}, which the paper does not use" if guided else ""
        networks.append(
            f"“{_name_only(checkpoint)}”: {count:,} parameters (the paper's has {PAPER_PARAMETERS:,}), "
            f"{trained}, {taught or 'no guided attention'}; where nothing else is said with guidance "
            f"{writing_settings(network)['guidance']:g} (1 in the paper)"
        )
    source = next((some["source"] for some in parameters if "source" in some), None)
    data = "people's lines" if source else "lines by built-in writers, made up, not people's"
    return {"network": "; ".join(networks), "data": data}


def _shown(run, record):
    """The figures and tables of a notebook, in order, each once."""
    found = []
    for output in record.get("listed", []):
        if output["file"].endswith((".svg", ".csv")) or output["kind"] == "file":
            continue
        table = read_json(run / output["file"], None) if output["file"].endswith(".json") else None
        table = None if misfit(table, _TABLE) or not table["rows"] else table
        if table:
            table["rows"] = [with_spreads(row) for row in table["rows"]]
        found.append({**output, "table": table, "left_out": not (run / output["file"]).is_file()})
    return found


def changed_files(run: Path, record: dict) -> list[str]:
    """The files that a notebook's record lists and that are gone, or no longer what it wrote."""

    def unchanged(file, sha256):
        return (run / file).is_file() and sha256_of(run / file) == sha256

    return [file for file, sha256 in record.get("outputs", {}).items() if not unchanged(file, sha256)]


def publish(run: str | Path, out: str | Path) -> list[str]:
    """Copy what may be published of a run: page, manifest, figures, tables, times and notebooks.

    Left out is what shows people's ink or texts, and every notebook that shows any of it. Large files, such
    as checkpoints, are not copied.

    run: the folder of the run.
    out: the folder to publish in. What was published there before is replaced; other files stay.
    Returns what was left out.
    Raises HwdiffError, and publishes nothing, when `run` is no run or one of an older version, when a
    notebook is not done or its files are not what it wrote, when a file names a place on this machine, or
    when `out` holds other things.
    """
    run, out = Path(run).resolve(), Path(out).resolve()
    # The records may be newer than the manifest: a notebook may have been started again, and stopped, since.
    records = _records(run, _manifest(run)["notebooks"])
    for name, record in records.items():
        if record["status"] != "done":
            raise HwdiffError(
                f"{run}: {name} is not done ({record['status']}); only whole runs are published"
            )
        if wrong := misfit(record, _DONE, f"records/{name}.json"):
            raise HwdiffError(f"{run}: a damaged record ({wrong}); run the suite again")
        listed = [output["file"] for output in record["listed"] if output["kind"] != "file"]
        needed = [*listed, f"notebooks/{name}.ipynb"]
        changed = [file for file in needed if not (run / file).is_file()] or changed_files(run, record)
        if changed:
            raise HwdiffError(f"{run / changed[0]}: is not what {name} wrote; run the suite again")
    _check_that_they_fit(run, records)
    before = _published_files(out)
    foreign = before is None and any(os.path.exists(out / name) for name in (*FOLDERS, PAGE, MANIFEST))
    if out == run or run in out.parents or foreign:
        raise HwdiffError(
            f"{out}: holds other things than what was published before; choose a folder of its own"
        )
    is_new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for left_over in out.glob(f"{_PUBLISHING}*"):
            shutil.rmtree(left_over)
        return _publish(run, records, out, before or ())
    except OSError as error:
        advice = "free some space or choose another folder"
        raise HwdiffError(f"{out}: cannot be written ({error.strerror}); {advice}") from error
    finally:
        if is_new:
            with suppress(OSError):
                out.rmdir()  # if it is empty, as it is when nothing was published


def _check_that_they_fit(run, records):
    """Raises HwdiffError when a notebook has read other files than those that another one wrote last."""
    written = {
        file: (sha256, name) for name, record in records.items() for file, sha256 in record["outputs"].items()
    }
    for name, record in records.items():
        for file, sha256 in record["inputs"].items():
            now, by = written.get(file, (sha256, None))
            if now != sha256:
                raise HwdiffError(
                    f"{run}: {by} has written another {file} since {name} ran; run the suite again"
                )


def _published_files(out):
    """What was published in a folder before; None where nothing was."""
    manifest = read_json(out / MANIFEST, None)
    # The manifest of a run has no such key.
    if not isinstance(manifest, dict) or "left_out" not in manifest or misfit(manifest, _MANIFEST):
        return None
    files = [file for record in manifest["notebooks"].values() for file in record.get("outputs", {})]
    return [file for file in files if is_file_name(file)]


def _publish(run, records, out, before):
    with tempfile.TemporaryDirectory(prefix=_PUBLISHING, dir=out) as temporary:
        fresh = Path(temporary)
        left_out = _copy(run, records, fresh)
        manifest = _published_manifest(run, records, fresh, left_out)
        write_json(fresh / MANIFEST, manifest)
        write_page(fresh)
        given = [value for record in records.values() for value in record["parameters"].values()]
        paths = [value for value in given if isinstance(value, str) and os.path.isabs(value)]
        places = (Path.home(), Path.cwd(), sys.prefix, Path(__file__).parents[2], run, *paths)
        _check_places(fresh, places)
        files = [path.relative_to(fresh).as_posix() for path in fresh.rglob("*") if path.is_file()]
        for file in set(files) - {PAGE, MANIFEST}:
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(fresh / file, out / file)
        for file in set(before) - set(files):
            (out / file).unlink(missing_ok=True)
            with suppress(OSError):  # unless other files are in it
                (out / file).parent.rmdir()
        # Last of all the manifest: until then the old one tells what was published.
        for file in (PAGE, MANIFEST):
            os.replace(fresh / file, out / file)
    return left_out


def _copy(run, records, out):
    """Copy figures, tables, times and notebooks that show no people's ink. Returns those that do."""
    left_out = []
    for name, record in records.items():
        notebook, as_html = f"notebooks/{name}.ipynb", f"notebooks/{name}.html"
        closed = [output["file"] for output in record["listed"] if output["of_people"]]
        left_out += [*closed, notebook, as_html] if closed else []
        copied = [output["file"] for output in record["listed"] if output["kind"] != "file"]
        for file in dict.fromkeys(file for file in copied if file not in closed):
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / file, out / file)
        if not closed:
            try:
                content = _without_places(nbformat.read(run / notebook, as_version=4), run)
                write_text(out / notebook, nbformat.writes(content) + "\n")
                write_text(out / as_html, notebook_html(out / notebook))
            except Exception as error:  # nbformat and nbconvert raise many kinds
                found = f"not a notebook that can be read ({error})"
                raise HwdiffError(f"{run / notebook}: {found}; run the suite again") from error
    return sorted(set(left_out))


def _published_manifest(run, records, out, left_out):
    published = {}
    for name, record in records.items():
        files = [file for file in record["outputs"] if (out / file).exists()]
        published[name] = {
            **record,
            "outputs": {file: sha256_of(out / file) for file in files},
            "inputs": _published_inputs(record),
            "parameters": {
                key: UNNAMED if key in PEOPLES and value else _name_only(value)
                for key, value in record["parameters"].items()
            },
        }
    return {
        "profile": _manifest(run)["profile"],
        "about": _about(_manifest(run)),  # which the names of files alone do not tell
        "notebooks": published,
        "left_out": left_out,
    }


def _published_inputs(record):
    """Fingerprints of what a notebook read, without folders. Of people's files one tells of all."""
    inputs, peoples = {}, {}
    given = {key: value for key, value in record["parameters"].items() if key in PEOPLES and value}
    for path, sha256 in record["inputs"].items():
        of = next((key for key, value in given.items() if Path(path).is_relative_to(value)), None)
        if of:
            peoples.setdefault(of, []).append(sha256)
        else:
            inputs[_name_only(path)] = sha256
    return inputs | {key: json_fingerprint(sorted(found)) for key, found in peoples.items()}


def _name_only(value):
    return os.path.basename(value) if isinstance(value, str) and os.path.isabs(value) else value


def _without_places(notebook, run):
    """A notebook without folders and times: papermill's metadata, the folders of paths in parameters, and, in
    what it printed, those of the run and of the kernel."""
    printed = re.compile(rf"[^\s'\"]*{re.escape(run.name)}/|^.*?\.py:\d+: ", re.MULTILINE)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = re.sub(
                rf'^({"|".join(PEOPLES)}) = ".*"$', rf'\1 = "{UNNAMED}"', cell.source, flags=re.M
            )
            cell.source = re.sub(r'"(?:/|\.\.?/)(?:[^"\n]*/)?([^"/\n]*)"', r'"\1"', cell.source)
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = printed.sub("", output.text.replace(f"{run}/", ""))
    return notebook


def _check_places(out, places):
    # Neither a tag, as </code>, nor letters that happen to stand in a picture.
    found = rb"(?<![\w+<])%s(?![\w+-])"
    places = {place: re.compile(found % re.escape(place.encode())) for place in set(map(str, places)) - {"/"}}
    for path in out.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if place := next((place for place, pattern in places.items() if pattern.search(content)), None):
            raise HwdiffError(
                f"{path.relative_to(out)}: names {place}, a place on this machine; it must not be published"
            )


def read_json(path: str | Path, default: object) -> object:
    """The content of a JSON file; `default` where there is none, or it is not whole."""
    try:
        return parse_json(Path(path).read_bytes())
    except (OSError, ValueError):
        return default
