"""An online recognizer of handwriting, strokes in and characters out, by which legibility is measured.

It is no part of the method: neither the network that writes nor its training ever sees it.
"""

import re
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hwdiff.ink import strokes
from hwdiff.model.checkpoint import find_device
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.tensors import load_metadata, load_tensors, save_tensors

FORMAT, EARLIER_FORMAT = "hwdiff recognizer 1", "hwdiff reader 1"  # the same but for its name
BUNDLED = Path(__file__).parents[1] / "weights" / "recognizer.safetensors"
_ABOUT = {"what": "recognizer", "advice": "give a file that hwdiff train-recognizer wrote"}
# What is read; `_` stands for any other character, on the paper as in a text.
ALPHABET = "_ abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?!'\"-:;()#+/"
BLANK = 0  # CTC's; character i of the alphabet is class i + 1
MAX_POINTS = 2000
RESTING = 0.01  # fraction of the mean offset; a pen-down offset below it is no movement
SMOOTHING = 32  # points on either side over which the height of the line is averaged
LENGTH_UNIT = 32
_NUMBER = {character: number for number, character in enumerate(ALPHABET, start=1)}
_SAME = str.maketrans(
    {
        "‘": "'",
        "’": "'",
        "`": "'",
        "´": "'",
        "“": '"',
        "”": '"',
        "„": '"',
        "–": "-",
        "—": "-",
        "[": "(",
        "]": ")",
    }
)


def normalise_text(text):
    """`text` as texts are compared: Unicode NFC; curly quotes, long dashes and square brackets as ' " - ( ); every run of white space
    one blank, none at either end; any other character outside the alphabet `_`. Capitals and punctuation count."""
    return "".join(character if character in _NUMBER else "_" for character in _plain(text))


def outside(text):
    """The characters of `text`, one by one, that `normalise_text` makes `_` because the alphabet lacks them."""
    return [character for character in _plain(text) if character not in _NUMBER]


def _plain(text):
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text).translate(_SAME)).strip()


def encode(text):
    """The classes of `normalise_text(text)`, (L,) int64, all above 0."""
    return np.array([_NUMBER[character] for character in normalise_text(text)], dtype=np.int64)


FEATURES = 8


def features(offsets, pen_up):
    """What the network sees of a line: (M, 8) float32, and (M,) the number of the point that each row is of.

    offsets: (N, 2), y upwards, in any unit.   pen_up: (N,) bool.
    They are the offset and the position against the mean of the 65 points around, all in units of the line's letter height, the direction,
    the logarithm of the offset's length, and the pen: neither the line's size nor where it lies matters. Points at which the pen
    rests on the paper are left out. No row at all when the line has no height.
    """
    offsets, pen_up = np.array(offsets, dtype=np.float64).reshape(-1, 2), np.array(pen_up, dtype=bool)
    offsets[:1], pen_up[:1] = 0, True  # the first only says where the line lies
    length = np.hypot(*offsets.T)
    moving = (
        pen_up | (length > RESTING * np.mean(length[~pen_up & (length > 0)]))
        if (length[~pen_up] > 0).any()
        else pen_up
    )
    points = np.flatnonzero(moving)
    nothing = np.zeros((0, FEATURES), dtype=np.float32), points[:0]
    if not len(points):
        return nothing
    offsets, pen_up = strokes.merge(
        offsets[: points[-1] + 1], pen_up[: points[-1] + 1], moving[: points[-1] + 1]
    )
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
    """The mean of (N, 2) `values` over the up to 65 points around each."""
    sums = np.concatenate((np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)))
    places = np.arange(len(values))
    low, high = np.maximum(places - SMOOTHING, 0), np.minimum(places + SMOOTHING + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)[:, None]


def pad(lines):
    """Stack features, a list of (N, 8), into (B, M, 8) float32: zeros to the longest, rounded up to a multiple of 32."""
    length = max(1, -(-max(map(len, lines)) // LENGTH_UNIT)) * LENGTH_UNIT
    padded = np.zeros((len(lines), length, FEATURES), dtype=np.float32)
    for row, line in zip(padded, lines, strict=True):
        row[: len(line)] = line
    return torch.from_numpy(padded)


@dataclass(frozen=True)
class RecognizerConfig:
    """Size of the network: channels at the points' rate, at half of it and at a quarter, convolutions at the quarter rate, and recurrent
    layers with `hidden` channels each way."""

    c1: int = 64
    c2: int = 96
    c3: int = 160
    convolutions: int = 4
    hidden: int = 128
    layers: int = 2
    dropout: float = 0.25


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
    """Convolutions from the points' rate down to a quarter of it, a BiLSTM there, and back to half, where characters are told (CTC)."""

    def __init__(self, config=None):
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
        self.metadata = {}

    def forward(self, x):
        """x: (B, N, 8) features, N divisible by 4. Returns (B, N / 2, 1 + number of characters) log-probabilities."""
        half = self.front(x.transpose(1, 2))
        y = self.down(half)
        for recurrent in self.recurrent:
            y, _ = recurrent(self.dropout(y).permute(2, 0, 1))
            y = y.permute(1, 2, 0)
        y = (
            self.up(self.dropout(y)).unflatten(1, (2, -1)).permute(0, 2, 3, 1).flatten(2)
        )  # two places for each of the quarter rate
        return self.classes(self.dropout(self.last(half + y))).transpose(1, 2).log_softmax(dim=-1)


def save_recognizer(recognizer: Recognizer, path: str | Path, **metadata) -> None:
    """Write a recognizer, in half precision, to the safetensors file `path`. metadata: what else it says, in JSON types."""
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in recognizer.state_dict().items()
    }
    save_tensors(
        path,
        state,
        {"format": FORMAT, "alphabet": ALPHABET, "network": asdict(recognizer.config), **metadata},
    )


def load_recognizer(path: str | Path = BUNDLED, device: str | torch.device | None = None) -> Recognizer:
    """The recognizer of the file `path`, by default the bundled one, in eval mode; its `metadata` is the file's.

    device: by default CUDA where there is one. Raises HwdiffError when the file is missing, damaged, or something else.
    """
    metadata, state = load_metadata(path, FORMAT, EARLIER_FORMAT, **_ABOUT), load_tensors(path, **_ABOUT)
    if metadata.get("alphabet") != ALPHABET:
        raise HwdiffError(f"{path}: reads another alphabet than this version; use the version that wrote it")
    try:
        recognizer = Recognizer(RecognizerConfig(**metadata["network"]))
        recognizer.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except (RuntimeError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise HwdiffError(
            f"{path}: its weights do not fit its metadata ({reason}); copy the file again"
        ) from error
    recognizer.metadata = metadata
    return recognizer.to(find_device(device)).eval()
