"""What the tests share: the folder of reference data, if there is one, and a small made-up database."""

import fcntl
import io
import os
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import mobilenet_v2

from hwdiff.data import synthetic
from hwdiff.data.dataset import Dataset
from hwdiff.data.preparation import prepare
from hwdiff.data.style_features import StyleFeatures
from hwdiff.evaluation.recognizer import load_recognizer
from hwdiff.ink import strokes
from hwdiff.ink.ink import Ink
from hwdiff.model.config import ModelConfig
from hwdiff.model.style_encoder import load_style_extractor
from hwdiff.model.unet import UNet
from hwdiff.training import pipeline

# The tests are of what a CPU computes, wherever they run. No CUDA is initialized before this.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# What any number of processes may do is done by one, but where a test asks for more.
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")
GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(os.environ.get("HWDIFF_SHARED", Path(__file__).parents[2] / "shared"))
# Of the built-in writers that the recognizer was not trained on, those that it reads best.
LEGIBLE_WRITERS = (13, 23, 42, 43)
TEXTS = ["a quick sketch", "Of 3 lines, or so", "written by nobody", "to be read by none."]
LISTS = {
    "trainset": ["a01-000u", "a01-001", "b02-004z"],
    "testset_f": ["b02-005"],
    "testset_t": ["c03-000"],
    "testset_v": ["c03-001a"],
}


@pytest.fixture(scope="session")
def shared():
    """The folder of reference data (HWDIFF_SHARED, or `shared` beside the project)."""
    if not SHARED.is_dir():
        pytest.skip(f"no reference data at {SHARED}: set HWDIFF_SHARED to its folder")
    return SHARED


@pytest.fixture
def few_steps(monkeypatch):
    """The chain's page of samples in few steps: it is only looked at whether it is there."""
    few = {name: (sampler, 2) for name, (sampler, _) in pipeline.REPORTED.items()}
    monkeypatch.setattr(pipeline, "REPORTED", few)


@pytest.fixture(scope="session")
def iam(shared):
    return shared / "data" / "iam-ondb"


def golden(path):
    """The arrays of a golden file, {name: array}; those in half precision as float32."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    halves = [key for key, array in arrays.items() if array.dtype == np.float16]
    return {**arrays, **{key: arrays[key].astype(np.float32) for key in halves}}


class Reference(NamedTuple):
    """What the authors' program gave for a network.

    weights: its weights file.
    arrays: what went in and came out.
    tolerance: how near ours must come.
    """

    weights: Path
    arrays: dict
    tolerance: float


@pytest.fixture(scope="session", params=["micro", "tiny"])
def reference(request):
    """The authors' program: a small network whose numbers are here, and a larger one.

    The small one has larger weights, so its numbers are met less closely.
    """
    folder = GOLDEN if request.param == "micro" else request.getfixturevalue("shared") / "golden"
    path = folder / f"reference-{request.param}.npz"
    return Reference(path.with_suffix(".h5"), golden(path), 2e-5 if request.param == "micro" else 1e-5)


def make_points(seed, words=3):
    """Made-up strokes of a line, one a word: lists of (x, y) in tablet units, y downwards."""
    generator = np.random.default_rng(seed)
    strokes, x = [], 1000
    for _ in range(words):
        t = np.linspace(0, 6 * np.pi, int(generator.integers(40, 80)))
        xs = x + 900 * t / t[-1] + 70 * np.sin(t) + generator.normal(0, 3, len(t))
        ys = 2000 + 200 * np.cos(t) * generator.uniform(0.6, 1) + generator.normal(0, 3, len(t))
        strokes.append([(int(a), int(b)) for a, b in zip(xs, ys, strict=True)])
        x += 1100
    return strokes


def make_xml(strokes):
    points = ("".join(f'<Point x="{x}" y="{y}" time="0.1"/>' for x, y in stroke) for stroke in strokes)
    body = "".join(f"<Stroke>{stroke}</Stroke>" for stroke in points)
    session = f"<WhiteboardCaptureSession><StrokeSet>{body}</StrokeSet></WhiteboardCaptureSession>"
    return f'<?xml version="1.0" encoding="ISO-8859-1"?>{session}'.encode()


def make_transcript(lines):
    return ("OCR:\r\n\r\nwrong\r\n\r\nCSR:\r\n\r\n" + "".join(f"{line}\r\n" for line in lines)).encode()


def write_archive(path, files):
    """A .tar.gz of {member name: bytes}."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def form_files(forms, lines=TEXTS):
    """({member: XML}, {member: transcript}) of made-up forms, as IAM's archives name them."""
    strokes, texts = {}, {}
    for form in forms:
        folder = f"{form[:3]}/{form[:7]}"
        texts[f"ascii/{folder}/{form}.txt"] = make_transcript(lines)
        for number in range(1, len(lines) + 1):
            points = make_points([len(strokes), *form.encode()])
            strokes[f"lineStrokes/{folder}/{form}-{number:02d}.xml"] = make_xml(points)
    return strokes, texts


def make_source(folder, lines=TEXTS):
    """Make `folder` like a download of IAM, with the texts `lines` in each form. Returns the folder."""
    strokes, texts = form_files([form for forms in LISTS.values() for form in forms], lines)
    write_archive(folder / "lineStrokes-all.tar.gz", strokes)
    write_archive(folder / "ascii-all.tar.gz", texts)
    (folder / "task").mkdir()
    for name, forms in LISTS.items():
        (folder / "task" / f"{name}.txt").write_text("".join(f" {form}\n" for form in forms))
    return folder


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A folder like a download of IAM: archives of strokes and texts, and a folder of split lists."""
    return make_source(tmp_path_factory.mktemp("iam"))


@pytest.fixture(scope="session")
def dataset(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("dataset") / "lines.npz"
    prepare(source, path, workers=1)
    return Dataset(path)


def random_mobilenet(seed):
    """MobileNetV2 with random weights, and batch norms fitted to them: features are of the usual size."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = mobilenet_v2(weights=None)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            network.train().features(torch.randn(2, 3, 96, 400))
    return network.eval()


def save_random_style_weights(path):
    """Write a weights file of MobileNetV2 with random weights. Returns its path."""
    weights = random_mobilenet(0).state_dict()
    features = {key: value for key, value in weights.items() if key.startswith("features.")}
    save_file(features, path, metadata={"padding": "right-bottom"})
    return path


@pytest.fixture(scope="session")
def style_weights(tmp_path_factory):
    """A weights file of MobileNetV2 with random weights, for what does not need trained ones."""
    return save_random_style_weights(tmp_path_factory.mktemp("weights") / "mobilenet.safetensors")


@pytest.fixture(scope="session")
def extractor(style_weights):
    return load_style_extractor(style_weights)


@pytest.fixture(scope="session")
def features(dataset, extractor, tmp_path_factory):
    return StyleFeatures(dataset, extractor, tmp_path_factory.mktemp("cache"))


TINY = ModelConfig(c1=32, c2=48, c3=64, num_layers=1)


def fill(network, seed=0):
    """Set all weights from NumPy's generator, whose stream is the same for all versions of torch."""
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            deviation = weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.1
            weight.copy_(torch.from_numpy(generator.normal(0, deviation, tuple(weight.shape))))
            if name.endswith("scale_shift.bias"):
                weight[: len(weight) // 2] += 1
    return network.eval()


@pytest.fixture(scope="session")
def network():
    network = fill(UNet(TINY))
    network.default_style = torch.from_numpy(np.random.default_rng(1).random((14, 1280), dtype=np.float32))
    return network


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """once(name, make): the path of a file that `make(path)` writes, once for all processes of the tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    folder.mkdir(exist_ok=True)

    def made(name, make):
        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / f"{name}.made").exists():  # what a failure left is no result
                make(folder / name)
                (folder / f"{name}.made").touch()
        return folder / name

    return made


@pytest.fixture(scope="session")
def iam_dataset(iam, once):
    """The whole real database, prepared."""
    return Dataset(once("iam.npz", lambda path: prepare(iam, path, workers=2)), split_scheme="authors")


def write_dataset(path, writers, forms=1):
    """The dataset of some of the built-in writers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "FORMS_PER_WRITER", forms)
        prepare(None, path, writers=writers, workers=1)
    return Dataset(path)


def compute_most(features):
    """Compute most of what tests and notebooks need: four lines of each form, all of other splits, and more.

    The rest are the training lines whose style features make the scale of likeness in the notebook on styles.
    """
    lines = features.dataset
    known = [np.flatnonzero(lines.forms == form)[:4] for form in np.unique(lines.forms)]
    train = lines.split("train")
    scale = train[:: max(1, len(train) // 100)]
    features.compute(np.concatenate((*known, scale, np.flatnonzero(lines.splits != "train"))))


@pytest.fixture(scope="session")
def suite_data(once):
    """The folder of a run of the suite's first notebook, with most style features of its lines."""
    from tests.suite.conftest import prepare_lines

    return once("suite-data", prepare_lines)


@pytest.fixture(scope="session")
def untrained(once):
    """The checkpoint of a small untrained network that passes for the small bundled one."""
    from tests.suite.conftest import save_untrained

    return once("untrained.safetensors", save_untrained)


@pytest.fixture(scope="session")
def written(suite_data):
    """The suite's lines, by built-in writers: enough for ten forms that are not of the training."""
    return Dataset(suite_data / "data" / "lines.npz")


@pytest.fixture(scope="session")
def written_features(written):
    """Style features of the lines of `written`, beside the data, where the commands look for them too."""
    return StyleFeatures(written, load_style_extractor("bundled", "cpu"))


@pytest.fixture(scope="session")
def recognizer():
    return load_recognizer(device="cpu")


@pytest.fixture(scope="session")
def made_up_lines():
    """Lines of four built-in writers, trimmed."""
    inks = []
    for writer in LEGIBLE_WRITERS:
        for line in synthetic.write_form(0, writer, 0):
            offsets, pen_up = strokes.merge(line.offsets, line.pen_up, line.kept)
            inks.append(Ink(offsets / strokes.scale_of(offsets), pen_up, line.text).trimmed())
    return inks


@pytest.fixture(scope="session", params=["real", "made-up"])
def lines(request):
    """Made-up lines and, if the database is available, lines by people the recognizer was not trained on."""
    if request.param == "made-up":
        return request.getfixturevalue("made_up_lines")
    dataset = request.getfixturevalue("iam_dataset")
    return [dataset.ink(index).trimmed() for index in dataset.split("test")[::16]]


# Files whose tests run notebooks, browsers, commands or trainings, or read many pictures or damaged files;
# the slowest first.
SLOW = (
    "suite/test_notebooks.py",
    "suite/test_same_seed.py",
    "training/test_distributed.py",
    "suite/test_runner.py",
    "cli/test_evaluation.py",
    "cli/test_cli.py",
    "evaluation/test_table1.py",
    "torture/test_kills.py",
    "suite/test_browser.py",
    "training/test_distillation.py",
    "training/test_pipeline.py",
    "data/test_iam.py",
    "evaluation/test_speed.py",
    "training/test_loop.py",
    "training/test_step_distillation.py",
    "ink/test_photos.py",
    "torture/test_fuzz.py",
    "evaluation/test_corruption.py",
    "torture/test_published.py",
    "suite/test_widgets.py",
    "test_packaging.py",
    "suite/test_release.py",
)


def pytest_collection_modifyitems(items):
    """Mark the tests of slow files and of many lines, and begin with the slowest.

    So the processes end at about the same time.
    """

    def place(item):
        name = Path(item.fspath).relative_to(Path(__file__).parent).as_posix()
        return SLOW.index(name) if name in SLOW else len(SLOW)

    items.sort(key=place)
    for item in items:
        many_lines = {"iam_dataset", "written"}.intersection(item.fixturenames)
        if place(item) < len(SLOW) or many_lines or "[real" in item.name:
            item.add_marker(pytest.mark.slow)
