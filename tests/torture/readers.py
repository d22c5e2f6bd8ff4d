"""What in hwdiff reads files, with whole files that each reads, all made up."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py  # noqa: F401 (loaded before memory is limited)
import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file

from hwdiff.cli.data import _print_dataset
from hwdiff.cli.reproduction import _parameter
from hwdiff.data import iam
from hwdiff.data.batches import Lines
from hwdiff.data.dataset import Dataset, style_lines
from hwdiff.data.excerpts import Excerpts
from hwdiff.data.line_images import LineImages
from hwdiff.data.lines import MAX_POINTS, Report
from hwdiff.data.preparation import prepare
from hwdiff.data.style_features import StyleFeatures
from hwdiff.diffusion.generate import named_styles, sample
from hwdiff.diffusion.style_gallery import by_likeness, load_styles, save_styles
from hwdiff.evaluation.pictures import Canvas
from hwdiff.evaluation.recognizer import Recognizer, RecognizerConfig, load_recognizer, save_recognizer
from hwdiff.evaluation.written import write_lines
from hwdiff.ink.images import normalise, read_image
from hwdiff.ink.ink import Ink
from hwdiff.ink.photos import handwriting_lines
from hwdiff.model.checkpoint import load_model, save_model
from hwdiff.model.style_encoder import BUNDLED, load_style_extractor
from hwdiff.model.unet import UNet
from hwdiff.suite.page import publish, write_manifest, write_page
from hwdiff.suite.runner import Reproduction, chosen_parameters, find_notebooks
from hwdiff.suite.verdicts import verdicts
from hwdiff.training.config import TrainingConfig, config_of
from hwdiff.training.figures import plot_loss, read_metrics
from hwdiff.training.loop import CHANGEABLE
from hwdiff.training.run_dir import RunDirectory, branch, read_config
from hwdiff.utils.files import append_jsonl, sha256_of
from tests.conftest import GOLDEN, TINY, fill, form_files, make_source, write_dataset
from tests.suite.conftest import ENVIRONMENT, write_notebook

TEXTS = ["a quick sketch", "Of 3 lines, or so"]
MEASUREMENTS = Path(__file__).parents[2] / "results" / "measurements"


@dataclass(frozen=True)
class Reader:
    """Something that reads files.

    make(folder): writes whole files that it reads.
    read(folder, file, out): reads them, `file` among them, as far as a user of them would; it may write
        into the folder `out`.
    writes: what it may write beside its inputs, too.
    damages(path): whether a file is one of those to damage.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path, Path, Path], object]
    writes: tuple[str, ...] = ()
    damages: Callable[[Path], bool] = lambda path: True


def _picture(seed=0, size=(400, 100)):
    """Zigzags on white paper."""
    picture = np.full(size[::-1], 250, dtype=np.uint8)
    generator = np.random.default_rng(seed)
    for x in range(20, size[0] - 20, 8):
        top = int(generator.integers(15, 40))
        picture[top : size[1] - 20, x : x + 3] = 10
    return picture


def make_database(folder):
    make_source(folder, TEXTS)
    (folder / "lineImages").mkdir()
    Image.fromarray(_picture()).save(folder / "lineImages" / "a01-000u-01.tif")


def make_unpacked_database(folder):
    strokes, texts = form_files(["a01-000u", "a01-001"], TEXTS)
    for name, content in {**strokes, **texts}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read_database(folder, file, out):
    prepare(folder, out / "lines.npz", workers=1)
    use_dataset(Dataset(out / "lines.npz"))
    if (folder / "lineImages").exists():
        iam.read_pairs(iam.Source(folder), Report())


def use_dataset(dataset):
    """Read of a dataset what training and evaluation read."""
    for index in range(len(dataset)):
        dataset.ink(index)
        dataset.line_image(index)
        dataset.characters(index)
        dataset.tokens(index)
        dataset.recorded(index)
    style_lines(dataset.forms)
    excerpts = Excerpts(dataset, 0)
    excerpts.of_epoch(0, 0.5)
    excerpts.places(MAX_POINTS)
    assert dataset.of_people in (True, False) and dataset.fingerprint[:8]
    for split in ("train", "validation", "test"):
        assert dataset.split(split) is not None
    _print_dataset(dataset.path, dataset.manifest)


def make_dataset(folder):
    source = folder / "source"
    source.mkdir()
    make_database(source)
    prepare(source, folder / "people.npz", workers=1)
    shutil.rmtree(source)
    write_dataset(folder / "built-in.npz", 1)


def read_dataset(folder, file, out):
    dataset = Dataset(file)
    use_dataset(dataset)
    features = StyleFeatures(dataset, _Extractor(), out)
    lines = Lines(dataset, features, style_lines(dataset.forms), torch.device("cpu"), Excerpts(dataset, 0))
    lines.batch(np.arange(len(dataset)))


def make_recordings(folder):
    for number in range(3):
        ink = _ink(number)
        for suffix in (".inkml", ".json"):
            (folder / "ann").mkdir(exist_ok=True)
            ink.save(folder / "ann" / f"{number}{suffix}")


def read_recordings(folder, file, out):
    prepare(folder, out / "lines.npz", workers=1)
    use_dataset(Dataset(out / "lines.npz"))


def _ink(seed=0):
    generator = np.random.default_rng(seed)
    offsets = generator.normal(0.3, 1, (40, 2)).astype(np.float32)
    return Ink(offsets, np.arange(40) % 13 == 0, "three words & more")


def make_ink(folder):
    for suffix in (".svg", ".inkml", ".json"):
        _ink().save(folder / f"ink{suffix}")
    strokes, _ = form_files(["a01-000u"], TEXTS[:1])
    (folder / "line.xml").write_bytes(next(iter(strokes.values())))


def read_ink(folder, file, out):
    ink = Ink.load(file)
    ink.trimmed().strokes()
    ink.to_image()
    ink.save(out / "again.svg")
    ink.save(out / "again.json")
    ink.line_image()


def make_pictures(folder):
    grey = Image.fromarray(_picture())
    colours = Image.merge("RGB", (grey, grey, ImageOps.autocontrast(grey)))
    colours.save(folder / "colours.png")
    grey.save(folder / "grey.png")
    transparent = colours.convert("RGBA")
    transparent.putalpha(ImageOps.invert(grey))
    transparent.save(folder / "alpha.png")
    grey.convert("1").save(folder / "bits.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    colours.rotate(90, expand=True).save(folder / "turned.jpg", exif=turned)
    colours.convert("CMYK").save(folder / "cmyk.jpg")
    colours.quantize(16).save(folder / "palette.gif", transparency=0)
    colours.convert("CMYK").save(folder / "cmyk.tiff", compression="tiff_lzw")
    Image.fromarray(_picture().astype(np.uint16) * 257).save(folder / "deep.tiff")
    Image.fromarray(_picture().astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(_picture().astype(np.float32)).save(folder / "float.tiff")
    grey.save(folder / "packed.tiff", compression="tiff_adobe_deflate")
    Image.fromarray(np.vstack([_picture(seed) for seed in range(4)])).save(folder / "page.png")


def read_picture(folder, file, out):
    try:
        normalise(read_image(file, file.name), file.name)
    finally:
        for line in handwriting_lines(file):
            normalise(line, file.name)


def make_checkpoint(folder):
    network = fill(UNet(TINY))
    network.default_style = torch.zeros(14, 1280)
    about = {"step": 7, "style_weights": {"name": "made up", "padding": "both", "fingerprint": "0" * 64}}
    writing = {"guidance": 1.5, "points_per_character": 10.0, "levels": [60, 30, 1]}
    training = {"guided_attention": 0.1}
    save_model(network, folder / "model.safetensors", half=True, **about, writing=writing, training=training)


def read_network(folder, file, out):
    network = load_model(file, "cpu")
    style = None if network.default_style is not None else torch.zeros(14, 1280)
    sample(network, "ab", style, steps=None if network.metadata.get("writing", {}) else 2, length=16)
    json.dumps(network.metadata)


def make_reference(folder):
    shutil.copy(GOLDEN / "reference-micro.h5", folder / "reference.h5")


def make_style_encoder(folder):
    shutil.copy(BUNDLED, folder / "style.safetensors")


def make_pickled_style_encoder(folder):
    torch.save(load_file(BUNDLED), folder / "style.pth")


def read_style_encoder(folder, file, out):
    extractor = load_style_extractor(file)
    extractor.of_line(np.zeros((96, 96), dtype=np.uint8))
    json.dumps(extractor.identity)


def make_recognizer(folder):
    torch.manual_seed(0)  # so that a case can be made again
    size = RecognizerConfig(c1=8, c2=8, c3=8, convolutions=1, hidden=8, layers=1)
    save_recognizer(Recognizer(size), folder / "recognizer.safetensors", step=3)


def read_recognizer(folder, file, out):
    load_recognizer(file, "cpu")(torch.zeros(1, 32, 8))


def make_styles(folder):
    torch.manual_seed(0)
    styles = {name: torch.rand(14, 1280) for name in ("ann", "bob")}
    save_styles(
        folder / "styles.safetensors",
        styles,
        style_weights={"name": "some", "padding": "both", "fingerprint": "0" * 64},
    )


def read_styles(folder, file, out):
    styles = load_styles(file)
    by_likeness(torch.zeros(14, 1280), styles)
    network = fill(UNet(TINY))
    network.gallery = file
    named_styles(network)
    for style in styles.values():
        sample(network, "a", style, steps=1, length=8)


class _Extractor:
    fingerprint, device, batch_size = "0" * 64, torch.device("cpu"), 2

    def __call__(self, pixels):
        return torch.zeros(len(pixels), 14, 1280)


def make_caches(folder):
    dataset = write_dataset(folder / "lines.npz", 1)
    LineImages(dataset, workers=1)
    features = StyleFeatures(dataset, _Extractor())
    features.compute(np.arange(2))


def read_caches(folder, file, out):
    dataset = Dataset(folder / "lines.npz")
    images = LineImages(dataset, workers=1)
    for index in range(len(dataset)):
        assert images[index].shape[0] == 96
    StyleFeatures(dataset, _Extractor(), line_images=images)[np.arange(3)]


def make_notebooks(folder):
    write_notebook(folder, "01_first", parameters="size = 1\nrate = 0.5\nword = 'a'\nsource = None  # str")
    write_notebook(folder, "02_second", parameters="size = 2\nsteps = [3, 4]", needs=["01_first"])
    given = ["size=3", "rate=1", "word=b", "source=null", "steps=[5, 6]"]
    (folder / "parameters.txt").write_text("\n".join(given) + "\n")


def read_notebooks(folder, file, out):
    lines = (folder / "parameters.txt").read_text(errors="replace").splitlines()
    given = dict(_parameter(line) for line in lines)
    notebooks = find_notebooks(folder)
    chosen_parameters(notebooks, "smoke", given)
    for notebook in notebooks:
        notebook.about()
        notebook.fingerprint()


def make_suite_run(folder):
    """A run with a figure, tables and files, as the suite leaves it."""
    for name in ("records", "tables", "figures", "notebooks", "data", "suite"):
        (folder / name).mkdir()
    write_notebook(folder / "suite", "01_first")
    write_notebook(folder / "suite", "02_second", needs=["01_first"])
    rows = [
        {"row": "ground truth", "FID, mean": 2.3, "FID, sd": 0.1},
        {"row": "b", "FID, mean": 1, "FID, sd": None},
    ]
    table = {
        "title": "A table",
        "rows": rows,
        "paper": {"ground truth": {"FID": 2.9}},
        "notes": ["few lines"],
    }
    (folder / "tables" / "one.json").write_text(json.dumps(table))
    (folder / "tables" / "one.csv").write_text("row\na\n")
    (folder / "figures" / "here.png").write_bytes(b"png")
    (folder / "figures" / "map.html").write_text("<b>a map</b>")
    (folder / "data" / "lines.npz").write_bytes(b"lines")
    kinds = {
        "tables/one.csv": "table",
        "tables/one.json": "table",
        "figures/here.png": "figure",
        "figures/map.html": "interactive",
        "data/lines.npz": "file",
    }
    listed = [
        {"kind": kind, "file": file, "title": f"Of {kind}", "of_people": False, "cell": 4, "takeaway": "So."}
        for file, kind in kinds.items()
    ]
    for name in ("01_first", "02_second"):
        shutil.copy(folder / "suite" / f"{name}.ipynb", folder / "notebooks")
        files = [*kinds, f"notebooks/{name}.ipynb"]
        record = {
            "status": "done",
            "key": "0" * 64,
            "state": "1" * 64,
            "code": "2" * 64,
            "title": "The first",
            "about": "What it reproduces.",
            "seconds": 120.0,
            "parameters": {"seed": 3, "checkpoint": "trained", "source": None},
            "inputs": {"data/lines.npz": sha256_of(folder / "data" / "lines.npz")},
            "environment": ENVIRONMENT,
            "listed": listed,
            "outputs": {file: sha256_of(folder / file) for file in files},
        }
        (folder / "records" / f"{name}.json").write_text(json.dumps(record))
    write_manifest(folder, "smoke", ["01_first", "02_second"])


def read_suite_run(folder, file, out):
    notebooks = find_notebooks(folder / "suite")
    run = Reproduction.__new__(Reproduction)  # without the environment, for which git is run
    run.out, run.profile, run.notebooks = folder, "smoke", {one.name: one for one in notebooks}
    run.parameters = chosen_parameters(notebooks, "smoke", {})
    run.code, run._fingerprints = "2" * 64, {}
    run.plan(notebooks)
    write_page(folder)
    publish(folder, out / "published")
    write_manifest(folder, "smoke", run.notebooks)
    write_page(folder)


def make_training_run(folder):
    directory = RunDirectory(folder, _settings(), changeable=CHANGEABLE)
    directory.begin()
    directory.save(2, *_trained())
    rows = [{"step": step, "loss": 2.0 / step, "seconds": 0.1 * step} for step in (1, 2, 3)]
    append_jsonl(folder / "metrics.jsonl", rows)
    levels = {"stroke": {"1": 0.5, "60": 0.1}, "pen": {"1": 0.5, "60": 0.1}}
    append_jsonl(folder / "validation.jsonl", [{"step": 2, "loss": 0.5, **levels}])


def _settings():
    return {
        "kind": "network",
        **asdict(TrainingConfig(steps=10, model=TINY)),
        "dataset": "0" * 64,
        "device": "cpu",
    }


def _trained():
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {"network": network}, {"optimizer": optimizer}, torch.Generator().manual_seed(0)


def read_training_run(folder, file, out):
    plot_loss(read_metrics(folder))
    config = config_of(read_config(folder), folder)
    config.learning_rate_at(1)
    config.excerpts_at(1)
    settings = {"kind": "network", **asdict(config), "dataset": "0" * 64, "device": "cpu"}
    branch(folder, out / "branch")
    directory = RunDirectory(folder, settings, changeable=CHANGEABLE)
    if directory.find_step(resume=True):
        directory.load(*_trained())
    directory.begin()
    assert directory.seconds + directory.cpu_seconds >= 0


def make_measurements(folder):
    for name in ("evaluate-test", "evaluate-4500", "samplers-fewer"):
        (folder / name).mkdir()
        shutil.copy(MEASUREMENTS / name / "table1.json", folder / name)
    shutil.copytree(MEASUREMENTS / "attention", folder / "attention")


def read_measurements(folder, file, out):
    verdicts(folder)


def _scribbled(indices, seeds):
    offsets = np.ones((40, 2), dtype=np.float32)
    accents = [np.ones((3, 2)), np.zeros((1, 2))]
    return [Ink(offsets, np.arange(40) % 8 == 0, TEXTS[index], accents, frozenset({1})) for index in indices]


def make_kept_lines(folder):
    write_lines(_scribbled, TEXTS, np.arange(len(TEXTS)), 0, folder=folder)


def read_kept_lines(folder, file, out):
    """As an evaluation that goes on reads them: what is not whole is written again."""
    inks, seconds = write_lines(_scribbled, TEXTS, np.arange(len(TEXTS)), 0, folder=folder)
    for ink in inks:
        ink.trimmed().to_image()
        Canvas().draw(ink)
    assert seconds >= 0


READERS = (
    Reader("database", make_database, read_database),
    Reader("unpacked database", make_unpacked_database, read_database),
    Reader("recordings", make_recordings, read_recordings),
    Reader("dataset", make_dataset, read_dataset),
    Reader(
        "caches",
        make_caches,
        read_caches,
        ("*.npy",),
        damages=lambda path: path.name != "lines.npz",
    ),
    Reader("checkpoint", make_checkpoint, read_network),
    Reader("reference", make_reference, read_network),
    Reader("style encoder", make_style_encoder, read_style_encoder),
    Reader("pickled style encoder", make_pickled_style_encoder, read_style_encoder),
    Reader("recognizer", make_recognizer, read_recognizer),
    Reader("styles", make_styles, read_styles),
    Reader("picture", make_pictures, read_picture),
    Reader("ink", make_ink, read_ink),
    Reader("notebooks", make_notebooks, read_notebooks),
    Reader(
        "suite run",
        make_suite_run,
        read_suite_run,
        ("index.html", "manifest.json"),
        damages=lambda path: (
            path.parent.name in ("records", "tables", "notebooks") or path.name == "manifest.json"
        ),
    ),
    Reader(
        "training run",
        make_training_run,
        read_training_run,
        ("config.json", "metrics.jsonl", "validation.jsonl"),
    ),
    Reader("measurements", make_measurements, read_measurements),
    Reader("kept lines", make_kept_lines, read_kept_lines, ("*.npz",)),
)
