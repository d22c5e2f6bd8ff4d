"""Figures of how a line was read, and of how samplers compare."""

import numpy as np
from matplotlib.figure import Figure

from hwdiff.evaluation.error_rates import Recognition, letters
from hwdiff.evaluation.recognizer import ALPHABET, BLANK
from hwdiff.evaluation.spread import mean_sd
from hwdiff.evaluation.tables import GROUND_TRUTH, Table, spacing_of_row
from hwdiff.ink.ink import Ink
from hwdiff.ink.plot import COLOURS, draw_coloured


def plot_recognition(ink: Ink, recognition: Recognition) -> Figure:
    """How a line was read: its ink coloured by character, and how probable each character was.

    The rival of a character, where it had one, is in grey.
    ink: trimmed.
    Where one character's ink ends is taken from where the next was told, so strokes added later, such as the
    bar of a t, may have another's colour.
    """
    figure = Figure(figsize=(max(5.0, 0.27 * len(recognition.text)), 3), layout="constrained")
    above, below = figure.subplots(2, height_ratios=(2, 1))
    owner = np.searchsorted(letters(ink, recognition)[1:-1], np.arange(len(ink)), side="right")
    draw_coloured(above, ink, COLOURS[owner % len(COLOURS)])
    title = f"read as: {recognition.text}" + (f"\nmeant: {ink.text}" if ink.text else "")
    above.set_title(title, fontsize=8, loc="left", parse_math=False)
    told = zip(recognition.text, recognition.probabilities, recognition.rows, strict=True)
    for number, (character, probability, row) in enumerate(told):
        colour, rivals = COLOURS[number % len(COLOURS)], recognition.classes[row].copy()
        rivals[[BLANK, ALPHABET.index(character) + 1]] = 0
        rival = int(rivals.argmax())
        name = "␣" if character == " " else character
        below.bar(number, probability, width=0.6, color=colour)
        below.text(number, -0.1, name, color=colour, ha="center", va="top", fontsize=9)
        if rivals[rival] > 0.02:
            height = probability + rivals[rival]
            below.bar(number, rivals[rival], width=0.6, bottom=probability, color="0.75")
            below.text(number, height, ALPHABET[rival - 1], color="0.3", ha="center", va="bottom", fontsize=7)
    below.set(ylim=(0, 1.2), ylabel="probability", yticks=(0, 0.5, 1))
    below.tick_params(labelsize=7, bottom=False, labelbottom=False)
    below.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def plot_comparison(table: Table) -> Figure:
    """CER against network evaluations a line, of a comparison of samplers.

    Bars are one standard deviation over the seeds. Samplers and a student have colours, spacings of the noise
    levels a kind of line; with 60 steps, which have the published levels, the lines of a sampler meet.
    """
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.add_subplot()
    rows = table.settings["rows"]
    samplers = {row: row if row == "student" else about["sampler"] for row, about in rows.items()}
    spacing_of = {row: spacing_of_row(row) for row in samplers}
    spacings = list(filter(None, dict.fromkeys(spacing_of.values()))) or [""]
    middle = (len(spacings) - 1) / 2
    for number, sampler in enumerate(dict.fromkeys(samplers.values())):
        of_sampler = sorted((row for row in samplers if samplers[row] == sampler), key=table.evaluations)
        spaced = any(spacing_of[row] for row in of_sampler)
        for kind, spacing in enumerate(spacings if spaced else [""]):
            own = [row for row in of_sampler if spacing_of[row] in ("", spacing)]
            rates = np.array([mean_sd(table.values[row]["cer"]) for row in own])
            # Spacings are a little apart, so that their bars can be told from one another.
            apart = [1.015 ** (kind - middle) if spacing_of[row] else 1.0 for row in own]
            evaluations = np.array([table.evaluations(row) for row in own]) * apart
            axes.errorbar(
                evaluations,
                100 * rates[:, 0],
                100 * rates[:, 1],
                fmt="osD^v"[number % 5] + ("-", "--", ":")[kind % 3],
                markersize=3,
                capsize=2,
                color=f"C{number}",
                label=f"{sampler}, {spacing}" if spacing else sampler,
            )
    real = 100 * mean_sd(table.values[GROUND_TRUTH]["cer"])[0]
    axes.axhline(real, color="0.5", linewidth=0.8, label="real lines")
    axes.set(xlabel="network evaluations a line (NFE)", ylabel="CER, %", xscale="log", ylim=(0, None))
    ticks = sorted({table.evaluations(row) for row in samplers})
    axes.set_xticks(ticks, ticks)
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=7, ncols=2, handlelength=4)
    return figure
