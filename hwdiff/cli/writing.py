"""Commands that write."""

import gc
from pathlib import Path
from typing import Annotated

import typer

from hwdiff.cli.options import Device, Guidance, Model, Sampler, SamplerName, Steps, StyleEncoder, command
from hwdiff.utils.errors import HwdiffError


@command
def write(
    text: Annotated[str, typer.Argument(help="What to write, on one line.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write: *.svg, *.png, or *.gif of the pen writing it.")],
    model: Model = "pretrained",
    style: Annotated[str | None, typer.Option(help="A name that hwdiff styles shows, or a picture of a line in the hand to write in.")] = None,
    style_encoder: StyleEncoder = "bundled",
    sampler: SamplerName = Sampler.eq12,
    steps: Steps = None,
    seed: Annotated[int, typer.Option(help="Another seed writes the text another time.")] = 0,
    guidance: Guidance = None,
    end_tokens: Annotated[int, typer.Option(help="End tokens after the text: 1, or 2 as in the released program.")] = 1,
    padded_style: Annotated[bool, typer.Option(help="Pad the style image to 1400 pixels as in training; the released program does not.")] = True,
    device: Device = None,
):
    """Write a text by hand."""
    gc.disable()  # what is imported here is never garbage: looking through it costs 0.4 s, at the start and at the end
    from hwdiff.diffusion.generate import sample
    from hwdiff.model.checkpoint import load_model

    gc.freeze()
    gc.enable()
    if out.suffix.lower() not in (".svg", ".png", ".gif"):
        raise HwdiffError(f"{out}: ink is saved as .svg, .png or .gif; choose such a name")
    [ink] = sample(
        load_model(model, device),
        [text],
        style,
        sampler.value,
        steps,
        seed,
        style_extractor=style_encoder,
        end_tokens=end_tokens,
        padded_style=padded_style,
        guidance=guidance,
    )
    ink.save(out)
    print(f"wrote {out}: {len(ink)} points, {len(ink.strokes())} strokes")


@command
def styles(
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write, *.png or *.svg.")],
    text: Annotated[str, typer.Argument(help="What to write in each.")] = "the quick brown fox jumps",
    model: Model = "pretrained",
    sampler: SamplerName = Sampler.eq12,
    steps: Steps = None,
    seed: Annotated[int, typer.Option(help="Another seed writes the text another time.")] = 0,
    guidance: Guidance = None,
    device: Device = None,
):
    """Show the styles that have names: a page with a text in each."""
    import torch

    from hwdiff.diffusion.generate import require_style_weights, sample
    from hwdiff.diffusion.style_gallery import load_styles
    from hwdiff.ink.plot import plot_inks, save_figure
    from hwdiff.model.checkpoint import load_model

    network, named = load_model(model, device), load_styles()
    require_style_weights(network, named.metadata["style_weights"])
    inks = sample(network, [text] * len(named), torch.stack(list(named.values())), sampler.value, steps, seed, guidance=guidance)
    save_figure(plot_inks(inks, columns=2, titles=list(named)), out)
    print(f"wrote {out}: {', '.join(named)}")


@command
def samples(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for texts.png, seeds.png, sampler-eq12.png and sampler-eq9.png.")],
    model: Model = "pretrained",
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Annotated[int, typer.Option(help="Seed of the first line.")] = 0,
    device: Device = None,
):
    """Draw pages of samples, each line with what the recognizer reads in it.

    Texts of all kinds in all styles; three seeds; the paper's sampler beside its ablation.
    """
    from hwdiff.ink.plot import save_figure
    from hwdiff.model.checkpoint import load_model
    from hwdiff.suite.release import sample_pages

    for name, page in sample_pages(load_model(model, device), seed, steps=steps, guidance=guidance):
        save_figure(page, out / f"{name}.png")
        print(f"wrote {out / f'{name}.png'}")


@command
def release(
    run: Annotated[Path, typer.Argument(help="The folder that hwdiff train wrote.")],
    data: Annotated[Path, typer.Option(help="Its dataset file, whose hands the model writes in to make the styles.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for small.safetensors and small-styles.safetensors.")],
    style_encoder: StyleEncoder = "bundled",
    guidance: Annotated[float, typer.Option(help="How closely it will follow the text where nothing else is asked for.")] = 1.0,
    points_per_character: Annotated[float, typer.Option(help="The room that it will give a text where nothing else is asked for.")] = 16.0,
    seed: Annotated[int, typer.Option(help="Seed of what is written for the styles.")] = 0,
    device: Device = None,
):
    """Make the files that come with the package.

    The run's weights in half precision, and named styles: features of lines that the model drew, of no person's ink.
    """
    from hwdiff.data.dataset import Dataset
    from hwdiff.data.style_features import StyleFeatures
    from hwdiff.evaluation.generation import subsample_lines
    from hwdiff.model.checkpoint import load_model
    from hwdiff.model.style_encoder import load_style_extractor
    from hwdiff.suite.release import CANDIDATES
    from hwdiff.suite.release import release as make_release

    dataset, network = Dataset(data), load_model(run / "model.safetensors", device)
    extractor = load_style_extractor(style_encoder, next(network.parameters()).device)
    styles = StyleFeatures(dataset, extractor)[subsample_lines(dataset, "train", CANDIDATES)]
    settings = {"guidance": guidance, "points_per_character": points_per_character}
    names = make_release(network, styles, out, extractor, settings, seed=seed)
    print(f"wrote {out / 'small.safetensors'} and {out / 'small-styles.safetensors'}: {', '.join(names)}")
