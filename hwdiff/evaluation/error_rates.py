"""Legibility: how much of what was written a recognizer can read, as character and word error rates."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from hwdiff.data.characters import spell
from hwdiff.evaluation.bootstrap import Bootstrap
from hwdiff.evaluation.recognizer import (
    ALPHABET,
    BLANK,
    LENGTH_UNIT,
    MAX_POINTS,
    Recognizer,
    features,
    load_recognizer,
    normalise_text,
    outside,
    pad,
)
from hwdiff.ink.ink import Ink
from hwdiff.utils.errors import HwdiffError

BATCH_SIZE = 32
LENGTH_BOUNDS = (0, 10, 20, 30, 40)  # a line of 11 to 20 characters counts with its like
MIN_COUNT = 20  # of a character, to be listed among the least legible


@dataclass
class Recognition:
    """What was read of a line.

    text: the characters, L of them.
    probabilities: (L,) of each.
    points: (L,) number of the ink's point at which each was told, which lies on the character or near it.
    rows: (L,) the row of `classes` that tells it.
    classes: (M, 1 + size of the alphabet) probabilities at every second point at which the pen moves. The
        first column is CTC's blank.
    """

    text: str
    probabilities: np.ndarray
    points: np.ndarray
    rows: np.ndarray
    classes: np.ndarray


@torch.inference_mode()
def recognize(inks: Sequence[Ink], recognizer: Recognizer | None = None) -> list[Recognition]:
    """Read inks.

    Decoding is greedy: the most probable character at each place, with no dictionary and no language model,
    which would guess what is not there. Pen-up moves at the end are left out. An ink without extent (none,
    one point, the pen never down) is read as "". How a line is read depends on the others by rounding only.
    Raises HwdiffError for an ink of more than 2000 points.
    """
    recognizer = recognizer or load_recognizer()
    device = next(recognizer.parameters()).device
    trimmed = [ink.trimmed() for ink in inks]
    for number, ink in enumerate(trimmed):
        if len(ink) > MAX_POINTS:
            raise HwdiffError(
                f"ink {number}: {len(ink)} points, but at most {MAX_POINTS} are read at a time; "
                "break it into lines"
            )
    found = [features(ink.offsets, ink.pen_up) for ink in trimmed]
    seen, points = [line for line, _ in found], [numbers for _, numbers in found]
    recognitions = [_decode(np.zeros((0, len(ALPHABET) + 1), dtype=np.float32), points[0]) for _ in seen]
    # Lines are padded to their own length rounded up, never to a neighbour's: none depends on its batch.
    places = {}
    for number, line in enumerate(seen):
        if len(line):
            places.setdefault(-(-len(line) // LENGTH_UNIT), []).append(number)
    for alike in places.values():
        for numbers in (alike[start : start + BATCH_SIZE] for start in range(0, len(alike), BATCH_SIZE)):
            batch = recognizer(pad([seen[number] for number in numbers]).to(device)).exp().cpu().numpy()
            for number, classes in zip(numbers, batch, strict=True):
                recognitions[number] = _decode(classes[: -(-len(seen[number]) // 2)], points[number])
    return recognitions


def reads_right(inks: Sequence[Ink], recognizer: Recognizer | None = None) -> list[bool]:
    """Whether each ink is read as its `text`, both normalised. Accents are drawn, not read."""
    found, meant = recognize(inks, recognizer), [spell(ink.text).text for ink in inks]
    return [normalise_text(one.text) == normalise_text(text) for one, text in zip(found, meant, strict=True)]


def edits_of(inks: Sequence[Ink], recognizer: Recognizer | None = None) -> np.ndarray:
    """Edits from text to what is read, and characters of the text, of each ink: (n, 2) float.

    The sums over lines, the one over the other, are their character error rate.
    """
    texts = [normalise_text(ink.text) for ink in inks]
    read = [normalise_text(found.text) for found in recognize(inks, recognizer)]
    return np.stack((_distances(texts, read), [len(text) for text in texts]), axis=1).astype(float)


def _decode(classes, points):
    best = classes.argmax(axis=1)
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    ends = [*starts[1:], len(best)]
    runs = [(start, end) for start, end in zip(starts, ends, strict=False) if best[start] != BLANK]
    peaks = np.array(
        [start + classes[start:end, best[start]].argmax() for start, end in runs], dtype=np.int64
    )
    text = "".join(ALPHABET[number - 1] for number in best[peaks])
    # A space at either end says nothing, and the normalised text has none.
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    rows = peaks[first:last]
    return Recognition(text[first:last], classes[rows, best[rows]], points[2 * rows], rows, classes)


def letters(ink: Ink, recognition: Recognition) -> np.ndarray:
    """Which points each character of a recognition was read from.

    ink: trimmed.
    Returns bounds (len(text) + 1,) int: character i has the points from bounds[i] up to bounds[i + 1].
    A space has the widest pen-up move to the right between its neighbours. Other bounds lie at the pen-up
    move nearest to the middle between the points at which two characters were told, or without one in the
    middle.
    """
    places, bounds = recognition.points, np.zeros(len(recognition.text) + 1, dtype=int)
    for number in range(1, len(recognition.text)):
        before, after = places[number - 1], places[number]
        bounds[number] = (before + after + 1) // 2
        moves = np.flatnonzero(ink.pen_up[before + 1 : after + 1]) + before + 1
        if len(moves):
            bounds[number] = moves[np.abs(moves - bounds[number]).argmin()]
    # Neither the first nor the last character is a space.
    for number in [place for place, character in enumerate(recognition.text) if character == " "]:
        before, after = places[number - 1], places[number + 1]
        moves = np.flatnonzero(ink.pen_up[before + 1 : after + 1]) + before + 1
        if len(moves):
            widest = moves[ink.offsets[moves, 0].argmax()]
            bounds[number : number + 2] = widest, widest + 1
    bounds[-1] = len(ink)
    return np.maximum.accumulate(bounds)


@dataclass
class Rate:
    """An error rate with its 95 % bootstrap interval, as fractions: 0.1 is 10 %. More than 1 is possible.

    low, high: None where there is no interval, as of one form.
    """

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        interval = "" if self.low is None else f" ({100 * self.low:.1f} to {100 * self.high:.1f})"
        return f"{100 * self.value:.1f} %{interval}"


@dataclass
class Legibility:
    """How legible some lines are.

    lines, characters: how many there are.
    cer, wer: edits (Levenshtein) from text to recognition, in characters and in words between spaces, divided
        by the text's.
    ceiling: the CER of real ink; None if unknown.   ceiling_of: which ink that is.
    floor: the CER of the same recognitions, each against the text of another line; None if there is no other
        text.
    by_character: {character: (count, not read right)}.
    by_length: {"11-20": (lines, CER)} by the text's characters.
    confusions: [(written, read, count)], most frequent first. "" written is a character too many, "" read is
        one missing.
    outside: {character: count} of those in the texts that the alphabet lacks. They count as `_`.
    recognized: the texts read.
    """

    lines: int
    characters: int
    cer: Rate
    wer: Rate
    ceiling: Rate | None
    ceiling_of: str
    floor: Rate | None
    by_character: dict[str, tuple[int, int]]
    by_length: dict[str, tuple[int, float]]
    confusions: list[tuple[str, str, int]]
    outside: dict[str, int]
    recognized: list[str]

    def summary(self) -> dict:
        """What fits on a line of a table, in JSON types."""
        return {
            "lines": self.lines,
            "characters": self.characters,
            "cer": asdict(self.cer),
            "wer": asdict(self.wer),
        }

    def table(self) -> str:
        """The whole for a person, several lines."""
        rows = [("character error rate", self.cer), ("word error rate", self.wer)]
        if self.ceiling:
            rows.append((f"ceiling: {self.ceiling_of}", self.ceiling))
        if self.floor:
            rows.append(("floor: the same recognitions, texts shuffled", self.floor))
        for length, (lines, rate) in self.by_length.items():
            rows.append((f"{length} characters, {lines} lines", f"{100 * rate:.1f} %"))
        width = max(len(name) for name, _ in rows)
        return "\n".join([*(f"{name:{width}}  {value}" for name, value in rows), *self._about_characters()])

    def _about_characters(self):
        worst = sorted(
            (
                (wrong / count, character, count)
                for character, (count, wrong) in self.by_character.items()
                if count >= MIN_COUNT
            ),
            reverse=True,
        )
        yield "least legible: " + ", ".join(
            f"{character!r} {100 * rate:.0f} % of {count}" for rate, character, count in worst[:10]
        )
        if self.confusions:
            yield "most confused: " + ", ".join(
                f"{written or 'nothing'!r} as {read or 'nothing'!r} {count}"
                for written, read, count in self.confusions[:10]
            )
        if self.outside:
            yield "outside the alphabet: " + ", ".join(
                f"{character!r} {count}" for character, count in self.outside.items()
            )


def legibility(
    inks: Sequence[Ink],
    recognizer: Recognizer | None = None,
    groups: Sequence | np.ndarray | None = None,
    real: Sequence[Ink] | None = None,
    real_groups: Sequence | np.ndarray | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Legibility:
    """How much of what was written a recognizer can read.

    inks: what each is meant to say is its `text`.
    recognizer: by default the bundled one.
    groups, real_groups: (n,) what belongs together, such as the form; the bootstrap draws whole groups. None:
        the lines of one text.
    real: inks by people, whose CER is the ceiling. Without them it is that of the recognizer's own test
        lines.
    resamples: of the bootstrap.
    seed: of the bootstrap, and of the other lines that the floor is taken of. Those say something else.
    Both the text and what was read go through `normalise_text`; capitals and punctuation count.
    Raises HwdiffError when there are no inks, or one has no text.
    """
    if not inks:
        raise HwdiffError("legibility: there is no ink to read; give at least one line")
    texts = [normalise_text(ink.text) for ink in inks]
    if not all(texts):
        raise HwdiffError(
            f"legibility: ink {texts.index('')} has no text, so what is read has nothing to be compared with"
            "; give each its text"
        )
    if groups is not None and len(groups) != len(inks):
        raise HwdiffError(f"legibility: {len(groups)} groups for {len(inks)} inks; give one for each")
    recognizer = recognizer or load_recognizer()
    recognized = [normalise_text(recognition.text) for recognition in recognize(inks, recognizer)]
    bootstrap = Bootstrap(texts if groups is None else groups, resamples, seed)
    lengths, edits = np.array([len(text) for text in texts]), _distances(texts, recognized)
    words, read_words = ([text.split() for text in some] for some in (texts, recognized))
    if real is None:
        ceiling, ceiling_of = _tested_rate(recognizer)
    else:
        other = legibility(real, recognizer, real_groups, resamples=resamples, seed=seed)
        ceiling, ceiling_of = other.cer, f"{other.lines} real lines"
    return Legibility(
        lines=len(inks),
        characters=int(lengths.sum()),
        cer=_rate(edits, lengths, bootstrap),
        wer=_rate(_distances(words, read_words), np.array([len(line) for line in words]), bootstrap),
        ceiling=ceiling,
        ceiling_of=ceiling_of,
        floor=_floor(texts, recognized, bootstrap, seed),
        **_confusions(texts, recognized),
        by_length=_by_length(lengths, edits),
        outside=dict(Counter(character for ink in inks for character in outside(ink.text)).most_common()),
        recognized=recognized,
    )


def _tested_rate(recognizer):
    tested = recognizer.metadata.get("test")
    if tested is None:
        return None, ""
    return Rate(**tested["cer"]), f"{tested['lines']} real lines on which the recognizer was tested"


def _distances(wanted, found):
    return np.array([Levenshtein.distance(a, b) for a, b in zip(wanted, found, strict=True)])


def _rate(edits, lengths, bootstrap):
    counts = bootstrap.counts
    low, high = bootstrap.interval(counts @ edits / np.maximum(counts @ lengths, 1))
    interval = (None, None) if np.isnan(low) else (float(low), float(high))
    return Rate(float(edits.sum() / lengths.sum()), *interval)


def _floor(texts, recognized, bootstrap, seed):
    _, kinds = np.unique(texts, return_inverse=True)
    if not kinds.any():
        return None
    generator, drawn = np.random.default_rng(seed), np.arange(len(texts))
    while len(own := np.flatnonzero(kinds[drawn] == kinds)):
        drawn[own] = generator.integers(len(texts), size=len(own))
    others = [texts[number] for number in drawn]
    return _rate(_distances(others, recognized), np.array([len(text) for text in others]), bootstrap)


def _confusions(texts, recognized):
    written, wrong, pairs = Counter("".join(texts)), Counter(), Counter()
    for text, found in zip(texts, recognized, strict=True):
        for kind, at, to in Levenshtein.editops(text, found):
            wanted = "" if kind == "insert" else text[at]
            pairs[wanted, "" if kind == "delete" else found[to]] += 1
            wrong[wanted] += 1
    by_character = {character: (count, wrong[character]) for character, count in sorted(written.items())}
    by_frequency = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return {"by_character": by_character, "confusions": [(*pair, count) for pair, count in by_frequency]}


def _by_length(lengths, edits):
    result = {}
    for low, high in zip(LENGTH_BOUNDS, (*LENGTH_BOUNDS[1:], np.inf), strict=True):
        some = (lengths > low) & (lengths <= high)
        if some.any():
            name = f"{low + 1}-{high}" if high < np.inf else f"{low + 1} and more"
            result[name] = int(some.sum()), float(edits[some].sum() / lengths[some].sum())
    return result
