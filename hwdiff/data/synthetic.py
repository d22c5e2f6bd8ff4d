"""Built-in writers: made-up handwriting for those without IAM, from the single-stroke Hershey fonts.

A writer has a `WriterStyle`: some numbers, drawn from a seed, that bend the letters of two fonts (a print and
a script one) in the writer's own way and stay the same from line to line. Each letter varies each time it is
written.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from string import ascii_letters

import numpy as np
from HersheyFonts import HersheyFonts
from joblib import delayed
from scipy.ndimage import gaussian_filter1d

from hwdiff.data.lines import Limits, Line, within_limits
from hwdiff.ink.strokes import stroke_starts
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.parallel import in_parallel

WRITERS, MAX_WRITERS = 64, 100_000
MAX_REFUSED = 1000  # lines of a form that limits leave out
FORMS_PER_WRITER = 5
LINES_PER_FORM = 8
VERSION = 1  # of the writing: datasets remember it
HABITS = 4096  # letters, and joins, that are remembered: those of some writers, who write one after another
PRINT, SCRIPT = "rowmans", "scripts"
# All lengths below are in units of the fonts: a capital is 21 high, an x 14 in print and 9 in script.
CAPITAL, PRINT_X, SCRIPT_X, SCRIPT_SLANT = 21, 14, 9, 0.36
STEP = 0.4  # between the points of a path before the pen's speed is put in
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
# One for each capital letter, all of which the phrases alone hardly cover.
NAMES = (
    *("Adam", "Beth", "Carl", "Dora", "Emil", "Fay", "Greta", "Hugo", "Iris"),
    *("Jonas", "Kate", "Leo", "Mona", "Nils", "Otto", "Pia", "Quinn", "Rosa"),
    *("Sven", "Tilda", "Ugo", "Vera", "Walt", "Xenia", "York", "Zara"),
)
# What people write that is in no book: numbers, dates, prices, addresses, signs. `{d}` is any digit, `{n}`
# one from 1 to 9.
NOTES = (
    "{name} {name}, {name} and {name}",
    "{name} - and {name}? {name}!",
    "{n} {month} 19{d}{d}",
    "{month} {n}, 20{d}{d}",
    "No. {n}{d}, Quay Street",
    "Tel. {d}{d}{d} {d}{d}{d}{d}",
    'Room {n}{d}{d}, "B" wing',
    "{n},{d}{d}{d} miles, or {n}.{d} hours",
    "At {n}.{d}{d} - or {n}.{d}{d}?",
    "X = {n}{d}, Y = {d}.{d}, Z = {n}",
    "Smith & Jones ({n}{d}{d})",
    "{n} x {n}{d} = {n}{d}{d}!",
    "LONDON {n}{d}{d}, JUNE 18{d}{d}",
    "{n}{d} % of {n}{d}{d}: pass",
)


@dataclass(frozen=True)
class WriterStyle:
    """What stays the same from line to line of one writer. Lengths are in font units, angles are slopes.

    seed: of the writer's own letter shapes.
    script: fraction of lower-case letters in script.
    flourish: whether capitals are in script.
    unit: tablet units a font unit.
    slant: shear of the letters.
    aspect: width to height, as a factor.
    tall, deep: height of ascenders and depth of descenders, as factors.
    spacing, word_gap: between letters and between words.
    roundness: radius of corners.
    joining: fraction of letter pairs written without lifting the pen.
    character: how far letters are bent away from the font.
    variation: how far a letter differs from one time to the next.
    tremor: of the pen.
    slope, drift: of the baseline, straight and wavy.
    speed: tablet units from one point to the next.
    """

    seed: int
    script: float
    flourish: bool
    unit: float
    slant: float
    aspect: float
    tall: float
    deep: float
    spacing: float
    word_gap: float
    roundness: float
    joining: float
    character: float
    variation: float
    tremor: float
    slope: float
    drift: float
    speed: float


def draw_writer_style(seed: int, number: int) -> WriterStyle:
    """The style of built-in writer `number`, the same for the same seed.

    Two writers of five print, one writes pure script, two mix.
    """
    generator = np.random.default_rng((seed, number))
    uniform, normal = generator.uniform, generator.normal
    kind = number % 5
    script = (0.0, uniform(0.1, 0.4), uniform(0.4, 0.9), 1.0, 0.0)[kind]
    return WriterStyle(
        seed=int(generator.integers(2**31)),
        script=script,
        flourish=bool(kind == 3 and uniform() < 0.5),
        unit=float(np.exp(normal(np.log(17), 0.15))),
        slant=float(np.clip(normal(0.12, 0.22), -0.35, 0.6)),
        aspect=float(np.exp(normal(0, 0.16))),
        tall=uniform(0.8, 1.25),
        deep=uniform(0.7, 1.3),
        spacing=uniform(-1.5, 2.5) if kind < 3 else uniform(-0.5, 1),
        word_gap=uniform(8, 17),
        roundness=float(np.exp(uniform(np.log(0.35), np.log(1.4)))),
        joining=(
            uniform(0, 0.3),
            uniform(0.2, 0.6),
            uniform(0.5, 0.95),
            uniform(0.85, 1),
            uniform(0, 0.1),
        )[kind],
        character=uniform(0.6, 1.4),
        variation=uniform(0.3, 0.75),
        tremor=float(np.exp(uniform(np.log(0.02), np.log(0.14)))),
        slope=normal(0, 0.012),
        drift=uniform(0.2, 1.2),
        speed=uniform(16, 26),
    )


@cache
def _font(name):
    font = HersheyFonts()
    font.load_default_font(name)
    return font


@cache
def _font_glyph(name, character):
    """(strokes, width) of a character: (n, 2) arrays, y downwards from the baseline, x from the left edge."""
    font = _font(name)
    [glyph] = font.glyphs_for_text(character)
    strokes = [np.array(list(stroke), dtype=float) - (glyph.left_offset, 9) for stroke in glyph.strokes]
    if name == SCRIPT:  # upright, and with an x as high as that of print
        upright = [np.column_stack((x + SCRIPT_SLANT * y, y)) for x, y in (stroke.T for stroke in strokes)]
        strokes = [_raise_small(stroke) for stroke in upright]
    return strokes, float(glyph.char_width)


def _raise_small(stroke):
    """Script with its small letters as high as those of print, ascenders kept."""
    y = stroke[:, 1]
    stroke[:, 1] = np.interp(y, (-CAPITAL, -SCRIPT_X, 0, 12), (-CAPITAL, -0.85 * PRINT_X, 0, 9))
    return stroke


def _bend(points, bends):
    """Displace points (n, 2) by a smooth field: low waves and polynomials of coefficients `bends` (8, 2)."""
    u, v = points[:, 0] / 12 - 0.7, points[:, 1] / 16 + 0.5
    basis = np.stack(
        (u, v, u * v, u * u - 0.3, v * v - 0.3, np.sin(3 * u), np.sin(3 * v), np.sin(2.5 * (u + v)))
    )
    return points + basis.T @ bends


@lru_cache(HABITS)
def _letter(style, character):
    """The writer's own shape of a character: (main strokes, delayed strokes, width).

    Dots and crossbars of small letters are delayed.
    """
    generator = np.random.default_rng((style.seed, ord(character)))
    in_script = character.islower() and generator.uniform() < style.script
    in_script = in_script or (character.isupper() and style.flourish)
    strokes, width = _font_glyph(SCRIPT if in_script else PRINT, character)
    strokes = sorted(strokes, key=_is_dot)  # the dot of an i after its stem
    bends = generator.normal(0, style.character, (8, 2)) * (0.45, 0.5)
    if character not in ascii_letters:
        bends *= 0.4
    main, delayed = [], []
    for number, stroke in enumerate(strokes):
        is_dot = _is_dot(stroke)
        if is_dot:  # a dab instead of the font's little circle
            centre, dab = stroke.mean(axis=0), generator.uniform(0.5, 1.4)
            stroke = centre + np.array([[-0.3, -0.5], [0.3, 0.5]]) * dab
        else:
            stroke = _bend(_resample(stroke, 1.0), bends)
        stroke = np.column_stack((stroke[:, 0], np.where(stroke[:, 1] > 0, style.deep, 1) * stroke[:, 1]))
        above = stroke[:, 1] < -PRINT_X
        stroke[above, 1] = -PRINT_X + style.tall * (stroke[above, 1] + PRINT_X)
        if main and character.islower() and (is_dot or (character in "tx" and number == len(strokes) - 1)):
            delayed.append(stroke)
        elif main and (np.hypot(*(main[-1][-1] - stroke[0])) < (10 if in_script else 0.5)):
            main[-1] = np.concatenate((main[-1], stroke))
        else:
            main.append(stroke)
    if in_script:  # its letters touch: the width is that from entry to exit
        left = min(stroke[:, 0].min() for stroke in main)
        main, delayed = [stroke - (left, 0) for stroke in main], [stroke - (left, 0) for stroke in delayed]
        width = max(stroke[:, 0].max() for stroke in main)
    return main, delayed, width


def _is_dot(stroke):
    return np.ptp(stroke, axis=0).max() < 3


@lru_cache(HABITS)
def _joins(style, pair):
    """Whether the writer joins these two letters, as a habit."""
    return np.random.default_rng((style.seed, *map(ord, pair))).uniform() < style.joining


def _resample(path, step):
    """The path at equal distances of `step`, its ends included; columns after x and y go along."""
    at = np.concatenate(([0], np.cumsum(np.hypot(*np.diff(path[:, :2], axis=0).T))))
    wanted = np.linspace(0, at[-1], max(2, int(at[-1] / step) + 1))
    return _interpolate(wanted, at, path)


def _interpolate(wanted, at, columns):
    return np.column_stack([np.interp(wanted, at, column) for column in columns.T])


def _placed_strokes(style, text, generator):
    """The strokes of a text in font units, y downwards, joined where the writer joins letters.

    Delayed strokes come at the end of each word. Each stroke is (n, 3): x, y and the number of the character.
    """
    strokes, delayed = [], []
    x, previous = 0.0, " "
    for number, character in enumerate(text):
        if character == " ":
            strokes += delayed
            delayed = []
            x += style.word_gap * np.exp(generator.normal(0, 0.18))
        else:
            main, late, width = _letter(style, character)
            turn = np.array([[1, generator.normal(0, 0.05)], [generator.normal(0, 0.05), 1]])
            turn = turn * np.exp(generator.normal(0, 0.09 * style.variation, 2))
            bends = generator.normal(0, 0.3 * style.variation, (8, 2))
            place = np.array((x, generator.normal(0, 0.45 * style.variation)))
            main = [_of_character(_bend(stroke, bends) @ turn + place, number) for stroke in main]
            late = [stroke @ turn + place + generator.normal(0, 0.8 * style.variation, 2) for stroke in late]
            late = [_of_character(stroke, number) for stroke in late]
            joined = (
                previous.isalpha()
                and character.islower()
                and _joins(style, previous + character)
                and generator.uniform() < 0.95
            )
            if (
                joined
                and strokes
                and np.hypot(*(main[0][0] - strokes[-1][-1])[:2] * (1, 0.6)) < 11
                and strokes[-1][-1][0] < main[0][:, 0].max()
            ):
                ligature = _stroke_between(strokes[-1][-1], main[0][0])
                strokes[-1] = np.concatenate((strokes[-1], ligature, main[0]))
                strokes += main[1:]
            else:
                strokes += main
            delayed += late
            spacing = style.spacing + generator.normal(0, 0.5 * style.variation)
            x += width + spacing * (1 if character.isalnum() else 0.5)
        previous = character
    return strokes + delayed


def _of_character(stroke, number):
    return np.column_stack((stroke, np.full(len(stroke), float(number))))


def _stroke_between(end, start):
    """The ligature from one letter to the next: a shallow curve below the straight line."""
    t = np.linspace(0, 1, 6)[1:-1, None]
    sag = min(1.2, 0.15 * np.hypot(*(start - end)[:2]))
    return end + t * (start - end) + np.column_stack((0 * t, 4 * sag * t * (1 - t), 0 * t))


def _at_pen_speed(path, speed):
    """The points that a tablet would record of a path, both in tablet units; a third column goes along.

    The pen is fast where the path is straight, slow in bends and at the ends.
    """
    moves = np.diff(path[:, :2], axis=0).T
    step = np.hypot(*moves)
    heading = np.unwrap(np.arctan2(*moves[::-1]))
    curvature = np.zeros(len(step))
    if len(step) > 2:
        bend = np.abs(np.gradient(heading)) / np.maximum(step, 1e-6)
        curvature = gaussian_filter1d(bend, 2, mode="nearest")
    from_end = np.minimum(np.arange(len(step)), np.arange(len(step))[::-1]) * step.mean()
    # The two-thirds power law of drawing: speed falls with the cube root of curvature.
    velocity = (
        speed
        * np.clip((0.012 / np.maximum(curvature, 1e-6)) ** (1 / 3), 0.3, 1.5)
        * np.clip(0.45 + from_end / (3 * speed), 0, 1)
    )
    time = np.concatenate(([0], np.cumsum(step / velocity)))
    wanted = np.linspace(0, time[-1], max(2, round(time[-1]) + 1))
    return _interpolate(wanted, time, path)


def write_points(
    style: WriterStyle, text: str, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a tablet would record of a text in this style.

    Returns points (N, 2) int64 in tablet units, y downwards; first (N,) bool, True where a stroke begins; and
    characters (N,) int16, the number in the text of the character that each point was written for. Between
    two joined letters it changes halfway.
    Raises HwdiffError when there is nothing to write.
    """
    strokes = _placed_strokes(style, text, generator)
    if not strokes:
        raise HwdiffError(f"text {text!r}: nothing in it can be written")
    phase, wave = generator.uniform(0, 2 * np.pi), generator.uniform(90, 260)
    slope = style.slope + generator.normal(0, 0.006)
    recorded = []
    for stroke in strokes:
        path, character = np.split(_resample(stroke, STEP), [2], axis=1)
        if len(path) > 6:
            shaking = generator.normal(0, 1, path.shape)
            tremor = style.tremor * 5 * gaussian_filter1d(shaking, 1.2 / STEP, axis=0)
            path += tremor + style.variation * 2 * gaussian_filter1d(shaking, 6 / STEP, axis=0)
            path = gaussian_filter1d(path, style.roundness / STEP, axis=0, mode="nearest")
        x, y = path.T
        y = y + slope * x + style.drift * np.sin(2 * np.pi * x / wave + phase)
        path = np.column_stack((style.aspect * x - style.slant * y, y)) * style.unit
        recorded.append(_at_pen_speed(np.column_stack((path, character)), style.speed))
    first = stroke_starts(list(map(len, recorded)))
    points, characters = np.split(np.concatenate(recorded).round(), [2], axis=1)
    return points.astype(np.int64), first, characters[:, 0].astype(np.int16)


@cache
def _words():
    return files("hwdiff.data").joinpath("phrases.txt").read_text(encoding="utf-8").split()


def draw_text(generator: np.random.Generator) -> str:
    """A line of text: some consecutive words of the phrases in the package, or a note with digits."""
    if generator.uniform() < 0.15:
        note = NOTES[generator.integers(len(NOTES))]
        marks = {"{month}": MONTHS, "{name}": NAMES, "{n}": "123456789", "{d}": "0123456789"}
        for mark, choices in marks.items():
            while mark in note:
                note = note.replace(mark, choices[generator.integers(len(choices))], 1)
        return note
    words = _words()
    at, wanted = generator.integers(len(words)), generator.integers(14, 40)
    text = words[at]
    while len(text) < wanted and at + 1 < len(words):
        at += 1
        text += " " + words[at]
    return text


def write_form(seed: int, writer: int, form: int, *, limits: Limits | None = None) -> list[Line]:
    """The lines of one form of a built-in writer. The same arguments give the same lines."""
    limits, style = limits or Limits(), draw_writer_style(seed, writer)
    name, lines, refused = f"w{writer:02d}-{form}", [], 0
    generator = np.random.default_rng((seed, writer, form))
    while len(lines) < LINES_PER_FORM:
        text = draw_text(generator)
        points, first, characters = write_points(style, text, generator)
        try:
            arrays = within_limits(points, first, text, limits=limits)
        except ValueError as error:  # too long for the network: write another line
            refused += 1
            if refused == MAX_REFUSED:
                raise HwdiffError(
                    f"limits: they leave out every built-in line ({error}); widen them"
                ) from error
            continue
        lines.append(Line(f"{name}-{len(lines) + 1:02d}", name, text, *arrays, characters=characters[1:]))
    return lines


def split_of_form(form: str) -> str:
    """The split of a form of the built-in writers: of every 16 writers 13 train, 1 validates, 2 test."""
    place = int(form[1:].partition("-")[0]) % 16
    return {5: "validation", 3: "test", 10: "test"}.get(place, "train")


def write_lines(
    seed: int = 0,
    *,
    writers: int = WRITERS,
    limits: Limits | None = None,
    workers: int = -1,
    progress: Callable[[int], None] | None = None,
) -> list[Line]:
    """All lines of the built-in writers, sorted by id.

    writers: how many. The first ones write the same, however many there are.
    limits: which lines are dropped.
    workers: processes, -1 for one a core. The result is the same for any number.
    progress(n): called with the number of lines done since the last call.
    """
    forms = [(writer, form) for writer in range(writers) for form in range(FORMS_PER_WRITER)]
    lines = []
    tasks = (delayed(write_form)(seed, *form, limits=limits) for form in forms)
    for written in in_parallel(tasks, workers):
        lines += written
        if progress:
            progress(len(written))
    return sorted(lines, key=lambda line: line.id)
