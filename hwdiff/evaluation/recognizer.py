"""An online recognizer of handwriting, from strokes to characters, by which legibility is measured.

It is no part of the method: neither the network that writes nor its training ever sees it.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hwdiff.ink import strokes
from hwdiff.model.checkpoint import find_device
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.json_values import require
from hwdiff.utils.settings import check_settings, setting
from hwdiff.utils.tensors import NoInitialWeights, load_tensors, require_weights, save_tensors

FORMAT, EARLIER_FORMAT = "hwdiff recognizer 1", "hwdiff reader 1"  # the same but for its name
BUNDLED = Path(__file__).parents[1] / "weights" / "recognizer.safetensors"
_ABOUT = {"what": "recognizer", "advice": "give a file that hwdiff train-recognizer wrote"}
# Of the metadata, what is used later.
_METADATA = {
    "network": {"*": object},
    "forms?": {"*": [str]},
    "test?": ({"cer": {"value": float, "low": (float, None), "high": (float, None)}, "lines": int}, None),
}
# The characters that are recognized. `_` stands for any other, in ink as in a text.
ALPHABET = "_ abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?!'\"-:;()#+/"
BLANK = 0  # CTC's blank; character i of the alphabet is class i + 1
MAX_POINTS = 2000
RESTING = 0.01  # fraction of the mean offset; a pen-down offset below it is no movement
SMOOTHING = 32  # points on either side over which the position of the line is averaged
LENGTH_UNIT = 32
FEATURES = 8
_NUMBER = {character: number for number, character in enumerate(ALPHABET, start=1)}
_SAME = str.maketrans("‘’`´“”„–—[]", "''''" + '"""' + "--()")


def normalise_text(text: str) -> str:
    """`text`, normalised for comparison. Capitals and punctuation count.

    It is in Unicode NFC. Curly quotes, long dashes and square brackets become ' " - ( ). A run of white space
    becomes one space, and none is left at either end. Any other character outside the alphabet becomes `_`.
    """
    return "".join(character if character in _NUMBER else "_" for character in _plain(text))


def outside(text: str) -> list[str]:
    """The characters of `text`, one by one, which `normalise_text` replaces by `_`."""
    return [character for character in _plain(text) if character not in _NUMBER]


def _plain(text):
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text).translate(_SAME)).strip()


def encode(text: str) -> np.ndarray:
    """The classes of `normalise_text(text)`, (L,) int64, all above 0."""
    return np.array([_NUMBER[character] for character in normalise_text(text)], dtype=np.int64)


def features(offsets: np.ndarray, pen_up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the network sees of a line, whatever the line's size and place.

    For each point these are: the offset, and the position relative to the mean of the 65 points around, in
    units of the letter height; the direction; the logarithm of the offset's length; and the pen. Points at
    which the pen rests on the paper are left out.

    offsets: (N, 2), y upwards, in any unit.
    pen_up: (N,) bool.
    Returns features (M, 8) float32, and the indices (M,) of their points. M = 0 when the line has no height.
    """
    offsets, pen_up = np.array(offsets, dtype=np.float64).reshape(-1, 2), np.array(pen_up, dtype=bool)
    offsets[:1], pen_up[:1] = 0, True  # the first only says where the line lies

    # Leave out points at which the pen rests.
    length, moving = np.hypot(*offsets.T), pen_up
    if (length[~pen_up] > 0).any():
        moving = pen_up | (length > RESTING * np.mean(length[~pen_up & (length > 0)]))
    points = np.flatnonzero(moving)
    nothing = np.zeros((0, FEATURES), dtype=np.float32), points[:0]
    if not len(points):
        return nothing
    until = points[-1] + 1
    offsets, pen_up = strokes.merge(offsets[:until], pen_up[:until], moving[:until])

    # Divide by the height of the letters; a few high points do not count for more.
    around = np.cumsum(offsets, axis=0)
    around = around - _running_mean(around)
    drawn = np.square(around[~pen_up, 1])
    height = np.sqrt(np.mean(np.minimum(drawn, 9 * np.median(drawn)))) if len(drawn) else 0.0
    if not height > 1e-6 * np.abs(offsets).max(initial=0):
        return nothing
    offsets, around = offsets / height, around / height

    length = np.hypot(*offsets.T)
    direction = offsets / np.maximum(length, 1e-6)[:, None]
    columns = (
        offsets.clip(-6, 6) / 2,
        around.clip(-24, 24) * (0.25, 1.0),
        direction,
        np.log(length + 0.02)[:, None] / 2 + 0.5,
        pen_up[:, None],
    )
    return np.concatenate(columns, axis=1).clip(-6, 6).astype(np.float32), points


def _running_mean(values):
    """The mean of `values` (N, 2) over the up to 65 points around each."""
    sums = np.concatenate((np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)))
    places = np.arange(len(values))
    low, high = np.maximum(places - SMOOTHING, 0), np.minimum(places + SMOOTHING + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)[:, None]


def pad(lines: Sequence[np.ndarray]) -> torch.Tensor:
    """Stack features, each (N, 8), into (B, M, 8) float32.

    They are padded with zeros to the longest, rounded up to a multiple of 32.
    """
    length = max(1, -(-max(map(len, lines)) // LENGTH_UNIT)) * LENGTH_UNIT
    padded = np.zeros((len(lines), length, FEATURES), dtype=np.float32)
    for row, line in zip(padded, lines, strict=True):
        row[: len(line)] = line
    return torch.from_numpy(padded)


@dataclass(frozen=True)
class RecognizerConfig:
    """Size of the network."""

    c1: int = setting(64, "Channels at the points' rate.", low=1, high=4096)
    c2: int = setting(96, "Channels at half the rate.", low=1, high=4096)
    c3: int = setting(160, "Channels at a quarter of the rate.", low=1, high=4096)
    convolutions: int = setting(4, "Convolutions at a quarter of the rate.", low=0, high=64)
    hidden: int = setting(128, "Channels of the recurrent layers in each direction.", low=1, high=4096)
    layers: int = setting(2, "Recurrent layers.", low=1, high=64)
    dropout: float = setting(0.25, "Fraction of the channels dropped in training.", low=0, below=1)

    def __post_init__(self):
        check_settings(self)


class _Convolution(nn.Module):
    def __init__(self, channels_in, channels, stride=1):
        super().__init__()
        self.convolution = nn.Conv1d(channels_in, channels, 5, stride, padding=2, bias=False)
        self.norm = nn.BatchNorm1d(channels)
        self.residual = channels_in == channels and stride == 1

    def forward(self, x):
        y = torch.relu(self.norm(self.convolution(x)))
        return x + y if self.residual else y


class Recognizer(nn.Module):
    """Predicts characters from the features of points, for CTC.

    Convolutions lead from the points' rate down to a quarter of it, where BiLSTMs are. Characters are
    predicted at half the rate.
    """

    def __init__(self, config: RecognizerConfig | None = None):
        super().__init__()
        self.config = config = config or RecognizerConfig()
        self.front = nn.Sequential(
            _Convolution(FEATURES, config.c1),
            _Convolution(config.c1, config.c2, 2),
            _Convolution(config.c2, config.c2),
        )
        self.down = nn.Sequential(
            _Convolution(config.c2, config.c3, 2),
            *(_Convolution(config.c3, config.c3) for _ in range(config.convolutions)),
        )
        widths = [config.c3, *[2 * config.hidden] * (config.layers - 1)]
        self.recurrent = nn.ModuleList(nn.LSTM(width, config.hidden, bidirectional=True) for width in widths)
        self.up = nn.Conv1d(2 * config.hidden, 2 * config.c2, 1)
        self.last = _Convolution(config.c2, config.c2)
        self.dropout = nn.Dropout1d(config.dropout)  # a channel is dropped all along the line
        self.classes = nn.Conv1d(config.c2, len(ALPHABET) + 1, 1)
        self.metadata: dict = {}  # of the file it came from

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (B, N / 2, 1 + number of characters), the first CTC's blank.

        x: (B, N, 8) features, N divisible by 4.
        """
        half = self.front(x.transpose(1, 2))
        y = self.down(half)
        for recurrent in self.recurrent:
            y, _ = recurrent(self.dropout(y).permute(2, 0, 1))
            y = y.permute(1, 2, 0)
        # Each place of the quarter rate gives two of the half rate.
        y = self.up(self.dropout(y)).unflatten(1, (2, -1)).permute(0, 2, 3, 1).flatten(2)
        return self.classes(self.dropout(self.last(half + y))).transpose(1, 2).log_softmax(dim=-1)


def save_recognizer(recognizer: Recognizer, path: str | Path, **metadata) -> None:
    """Write a recognizer, in half precision, to the safetensors file `path`.

    metadata: what else the file should say, in JSON types.
    """
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in recognizer.state_dict().items()
    }
    about = {"format": FORMAT, "alphabet": ALPHABET, "network": asdict(recognizer.config)}
    save_tensors(path, state, {**about, **metadata})


def load_recognizer(path: str | Path | None = None, device: str | torch.device | None = None) -> Recognizer:
    """Load a recognizer, in eval mode. Its `metadata` is the file's.

    path: None for the bundled recognizer.
    device: by default CUDA if available.
    Raises HwdiffError when the file is missing, damaged, or something else.
    """
    path = path or BUNDLED
    metadata, state = load_tensors(path, FORMAT, EARLIER_FORMAT, **_ABOUT)
    if metadata.get("alphabet") != ALPHABET:
        found = "recognizes another alphabet than this version"
        raise HwdiffError(f"{path}: {found}; use the version that wrote it")
    require(metadata, _METADATA, name=path, what="a whole recognizer", advice="copy the file again")
    try:
        config = RecognizerConfig(**metadata["network"])
        require_weights(lambda: Recognizer(config), state)
        with NoInitialWeights():
            recognizer = Recognizer(config)
        recognizer.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except (RuntimeError, KeyError, TypeError, HwdiffError) as error:
        found = f"its weights do not fit its metadata ({str(error).splitlines()[0]})"
        raise HwdiffError(f"{path}: {found}; copy the file again") from error
    recognizer.metadata = metadata
    return recognizer.to(find_device(device)).eval()
