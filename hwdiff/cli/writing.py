"""Commands that write."""

import gc
import re
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hwdiff.cli.options import (
    SAMPLER_HELP,
    Device,
    Guidance,
    Model,
    Sampler,
    SamplerName,
    Steps,
    StyleEncoder,
    command,
    require_figure,
    require_output,
    require_output_folder,
    require_picture,
)
from hwdiff.utils.errors import HwdiffError


@command
def write(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="What to save: of a line *.svg, *.png, *.gif (an animation of the pen), *.inkml or *.json; "
            "of a file *.pdf, or *.svg, *.png or *.inkml, numbered if there are several pages.",
        ),
    ],
    text: Annotated[str | None, typer.Argument(help="What to write, on one line.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="A text file (UTF-8) to write on pages, wrapped at words; line breaks are kept."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="fast (the default: 12 network evaluations a line), pretrained (its teacher: 120; the "
            "default where --sampler, --steps or a guidance is given, which fast has not learnt), small, a "
            "checkpoint (.safetensors), or weights of the authors' program (.h5)."
        ),
    ] = None,
    style: Annotated[
        list[str] | None,
        typer.Option(
            help="A named style (see hwdiff styles), or a picture of a line in the handwriting to imitate; "
            "by default the model's own style. Given several times it mixes them, with weights that add up "
            "to 1: --style ada:0.7 --style line.png:0.3."
        ),
    ] = None,
    style_encoder: StyleEncoder = "bundled",
    sampler: Annotated[Sampler | None, typer.Option(help=f"{SAMPLER_HELP} By default eq12.")] = None,
    steps: Steps = None,
    seed: Annotated[int, typer.Option(help="Another seed gives another version of the same text.")] = 0,
    guidance: Guidance = None,
    style_guidance: Annotated[
        float,
        typer.Option(
            help="1: the paper's method; above 1: guidance by the style, with one more network evaluation a "
            "step."
        ),
    ] = 1.0,
    end_tokens: Annotated[
        int, typer.Option(help="End tokens after the text: 1, or 2 as in the authors' program.")
    ] = 1,
    padded_style: Annotated[
        bool,
        typer.Option(
            help="Pad the style image to 1400 pixels, as in training; the authors' program does not."
        ),
    ] = True,
    check: Annotated[
        int,
        typer.Option(
            min=0,
            help="With --file: how often a piece of a line that the recognizer reads wrong is written again, "
            "with another seed.",
        ),
    ] = 0,
    paper: Annotated[str | None, typer.Option(help="With --file: A4 (the default), A5 or letter.")] = None,
    margin: Annotated[float | None, typer.Option(help="With --file: in millimetres, by default 20.")] = None,
    line_spacing: Annotated[
        float | None,
        typer.Option(help="With --file: in millimetres, by default 9; it gives the size of the writing too."),
    ] = None,
    pen_width: Annotated[
        float | None, typer.Option(help="With --file: in millimetres, by default 0.4.")
    ] = None,
    color: Annotated[
        str | None,
        typer.Option(help="With --file: the pen's colour, a name or e.g. #1a2a6c; by default black."),
    ] = None,
    smooth: Annotated[
        bool,
        typer.Option(
            "--smooth", help="With --file: draw curves through the points instead of straight lines."
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Refuse a text with characters that cannot be written, instead of warning."
        ),
    ] = False,
    device: Device = None,
):
    """Write a text as handwriting: a line, or a file on pages."""
    # What is imported here is never garbage. Scanning it would take 0.4 s, at the start and at the end.
    gc.disable()
    from hwdiff.diffusion.generate import sample
    from hwdiff.ink.ink import FORMATS, PAGE_FORMATS, or_list
    from hwdiff.model.checkpoint import load_model

    gc.freeze()
    gc.enable()
    if (text is None) == (file is None):
        found = "neither a text nor --file" if text is None else "both a text and --file"
        raise HwdiffError(f"{found}: give a text to write on a line, or --file FILE to write it on pages")
    suffixes = FORMATS if file is None else PAGE_FORMATS
    if out.suffix.lower() not in suffixes:
        what = "a line is" if file is None else "pages are"
        more = "; with --file FILE pages are saved as .pdf" if out.suffix.lower() == ".pdf" else ""
        raise HwdiffError(f"{out}: {what} saved as {or_list(suffixes)}; choose such a name{more}")
    chosen = mixture(style)
    read = [file or "", *(chosen if isinstance(chosen, dict) else [chosen or ""])]
    require_output(out, inputs=read)
    require_picture(
        chosen, {"--style-encoder": style_encoder != "bundled", "--no-padded-style": not padded_style}
    )
    of_pages = {
        "paper": paper,
        "margin": margin,
        "line_spacing": line_spacing,
        "pen_width": pen_width,
        "color": color,
        "smooth": smooth or None,
        "check": check or None,
    }
    of_pages = {name: value for name, value in of_pages.items() if value is not None}
    if file is None and of_pages:
        name = next(iter(of_pages)).replace("_", "-")
        raise HwdiffError(f"--{name}: only pages have it; give --file FILE")
    if file is None and "\n" in text.strip():
        raise HwdiffError("the text has several lines; put it in a file and give --file FILE")
    if model is None:
        is_plain = sampler is None and steps is None and guidance is None and style_guidance == 1
        model = "fast" if is_plain else "pretrained"
    options = {
        "sampler": (sampler or Sampler.eq12).value,
        "steps": steps,
        "guidance": guidance,
        "style_guidance": style_guidance,
        "style_extractor": style_encoder,
        "end_tokens": end_tokens,
        "padded_style": padded_style,
    }
    if file is None:
        if strict:
            require_writable(text, "the text")
        [ink] = sample(load_model(model, device), [text], chosen, seed=seed, **options)
        ink.save(out)
        print(f"wrote {out}: {len(ink)} points, {len(ink.strokes())} strokes")
        return

    from hwdiff.diffusion.pages import count_pieces, write_pages
    from hwdiff.ink.page import Layout, numbered, save_pages
    from hwdiff.utils.progress import Progress

    tries = of_pages.pop("check", 0)
    layout = Layout(**of_pages)
    try:
        content = file.read_text(encoding="utf-8-sig")  # with or without a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise HwdiffError(f"{file}: cannot be read as text ({error}); give a UTF-8 text file") from error
    if strict:
        require_writable(content, str(file))
    pieces = count_pieces(content, layout)
    if out.suffix.lower() != ".pdf":
        for number in range(1, pieces + 1):  # there are no more pages
            require_output(numbered(out, number), inputs=read)
    is_right = None
    if tries:
        from hwdiff.evaluation.error_rates import reads_right
        from hwdiff.evaluation.recognizer import load_recognizer

        is_right = partial(reads_right, recognizer=load_recognizer(device=device))
    network = load_model(model, device)
    with Progress("writing", pieces, unit="pieces of lines") as progress:
        options |= {"layout": layout, "seed": seed, "tries": tries, "is_right": is_right}
        written = write_pages(network, content, chosen, progress=progress.update, **options)
    paths = save_pages(written.pages, out)
    print(f"wrote {', '.join(map(str, paths))}: {written.pieces} pieces of lines")
    if written.wrong:
        first, left = written.wrong
        print(f"the recognizer read {first} of them wrong at first, {left} in the end")


def require_writable(text: str, name: str) -> None:
    """Raises HwdiffError for a text with characters that cannot be written.   name: what errors call it."""
    from hwdiff.data.characters import spell
    from hwdiff.diffusion.generate import unwritable

    spelling = spell(text)
    if spelling.unknown:
        raise HwdiffError(f"{name}: the model cannot write {unwritable(text, spelling)} (--strict)")


@command
def alphabet(
    data: Annotated[
        Path | None, typer.Option(help="A dataset file: says how often its training lines have each.")
    ] = None,
):
    """Say which characters can be written, and how often a training saw each."""
    from collections import Counter

    from hwdiff.data.characters import MARKS, REPLACED
    from hwdiff.data.tokenizer import ALPHABET

    characters = sorted(ALPHABET[1:])  # without `_`, which stands for all others
    if data:
        from hwdiff.data.dataset import Dataset

        dataset = Dataset(data)
        counts = Counter("".join(str(dataset.texts[line]) for line in dataset.split("train")))
        for character in sorted(characters, key=lambda character: -counts[character]):
            print(f"{'space' if character == ' ' else character:6} {counts[character]:8,}")
        others = sum(count for character, count in counts.items() if character not in ALPHABET[1:])
        print(f"{'others':6} {others:8,}")
    else:
        print(f"written: {''.join(characters).strip()} and space")
    print(f"written with these: {' '.join(REPLACED)}")
    print(f"drawn over letters: accents {' '.join('◌' + mark for mark in MARKS)}")


def mixture(given: list[str] | None) -> str | dict[str, float] | None:
    """What --style was given: nothing, one style, or {style: weight}; equal weights where none is given."""
    if not given:
        return None
    if not all(given):
        raise HwdiffError(
            "--style: an empty name; give a picture, or one of the names that hwdiff styles shows"
        )
    found = [re.fullmatch(r"(.+?)(?::(\d*\.?\d+))?", one, re.DOTALL).groups() for one in given]
    if len(found) == 1 and found[0][1] is None:
        return given[0]
    if len({name for name, _ in found}) < len(found):
        raise HwdiffError(f"--style {' '.join(given)}: a style is named twice; give each once")
    if len({weight is None for _, weight in found}) > 1:
        raise HwdiffError(f"--style {' '.join(given)}: give a weight to each, as in ada:0.7, or to none")
    return {name: 1 / len(found) if weight is None else float(weight) for name, weight in found}


@command
def style(
    picture: Annotated[Path, typer.Argument(help="A photo, scan or screenshot of handwriting.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The figure to write, *.png or *.svg.")],
):
    """Show what the model will see of a picture of handwriting, and to which named style it is nearest."""
    from hwdiff.diffusion.style_gallery import FAR, by_likeness, load_styles
    from hwdiff.ink.photos import plot_lines
    from hwdiff.ink.plot import save_figure
    from hwdiff.model.style_encoder import load_style_extractor

    require_figure(out, inputs=[picture])
    features = load_style_extractor("bundled").of_image(picture)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the picture's, which were given just now
        figure = plot_lines(picture)
    save_figure(figure, out)
    name, cosine = next(iter(by_likeness(features, load_styles()).items()))
    print(f"wrote {out}")
    print(
        f"nearest named style: {name}, cosine {cosine:.3f}; of the training's lines 95 % have {FAR} or more"
    )
    if cosine < FAR:
        warnings.warn(
            "handwriting unlike that of the training; what is written may not resemble it", stacklevel=1
        )


@command
def styles(
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write, *.png or *.svg.")],
    text: Annotated[str, typer.Argument(help="What to write.")] = "the quick brown fox jumps",
    model: Model = "pretrained",
    sampler: SamplerName = Sampler.eq12,
    steps: Steps = None,
    seed: Annotated[int, typer.Option(help="Another seed gives another version of the same text.")] = 0,
    guidance: Guidance = None,
    device: Device = None,
):
    """Draw a page that shows a text in each named style."""
    import torch

    from hwdiff.diffusion.generate import named_styles, sample
    from hwdiff.ink.plot import plot_inks, save_figure
    from hwdiff.model.checkpoint import load_model

    require_figure(out)
    network = load_model(model, device)
    named = named_styles(network)
    features = torch.stack(list(named.values()))
    options = {"sampler": sampler.value, "steps": steps, "seed": seed, "guidance": guidance}
    inks = sample(network, [text] * len(named), features, **options)
    save_figure(plot_inks(inks, columns=2, titles=list(named)), out)
    print(f"wrote {out}: {', '.join(named)}")


@command
def samples(
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="The folder for texts.png, seeds.png, sampler-eq12.png, sampler-eq9.png."
        ),
    ],
    model: Model = "pretrained",
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Annotated[int, typer.Option(help="Seed of the first line.")] = 0,
    device: Device = None,
):
    """Draw pages of samples.

    One page has texts of many kinds in all styles, one has the same text with three seeds, and two have the
    paper's texts by Eq. 12 and by Eq. 9. Each line is shown with what the recognizer reads in it.
    """
    from hwdiff.ink.plot import save_figure
    from hwdiff.model.checkpoint import load_model
    from hwdiff.suite.release import sample_pages

    require_output_folder(out)
    for name, page in sample_pages(load_model(model, device), seed, steps=steps, guidance=guidance):
        save_figure(page, out / f"{name}.png")
        print(f"wrote {out / f'{name}.png'}")


@command
def release(
    run: Annotated[Path, typer.Argument(help="The folder of a run of hwdiff train.")],
    name: Annotated[str, typer.Option(help="The name of the model, and of its files.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="The folder for NAME.safetensors and NAME-styles.safetensors."),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Its dataset file, for styles of its own, made from its training lines. Without, it gets "
            "the bundled styles."
        ),
    ] = None,
    style_encoder: StyleEncoder = "bundled",
    guidance: Annotated[
        float | None,
        typer.Option(
            help="The model's default guidance, see hwdiff write. By default unchanged (1 in a new network)."
        ),
    ] = None,
    points_per_character: Annotated[
        float | None,
        typer.Option(
            help="How many points the model writes per character of a text. By default unchanged "
            "(16 in a new network)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the lines written for the styles.")] = 0,
    device: Device = None,
):
    """Turn a training run into files to distribute.

    They are the weights in half precision, and named styles. A style is the features of a line that the model
    wrote, not of anyone's ink.
    """
    from hwdiff.data.dataset import Dataset
    from hwdiff.data.style_features import StyleFeatures
    from hwdiff.diffusion.generate import require_style_weights
    from hwdiff.evaluation.generation import subsample_lines
    from hwdiff.model.checkpoint import load_model
    from hwdiff.model.style_encoder import load_style_extractor
    from hwdiff.suite.release import CANDIDATES
    from hwdiff.suite.release import release as make_release

    require_output_folder(out)
    if style_encoder != "bundled" and not data:
        raise HwdiffError("--style-encoder: only styles of its own need it; give --data FILE")
    network = load_model(run / "model.safetensors", device)
    given = {"guidance": guidance, "points_per_character": points_per_character}
    settings, own = {name: value for name, value in given.items() if value is not None}, {}
    if data:
        dataset = Dataset(data)
        extractor = load_style_extractor(style_encoder, next(network.parameters()).device)
        require_style_weights(network, extractor.identity)
        features = StyleFeatures(dataset, extractor)[subsample_lines(dataset, "train", CANDIDATES)]
        own = {"features": features, "extractor": extractor}
    default = make_release(network, name, out, settings, seed=seed, **own)
    files = [f"{name}.safetensors", *([f"{name}-styles.safetensors"] if data else [])]
    print(f"wrote {' and '.join(files)} in {out}; its default style is {default}")
