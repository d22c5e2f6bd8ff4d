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
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="The picture to save: *.svg, *.png, or *.gif, an animation of the pen."
        ),
    ],
    model: Model = "pretrained",
    style: Annotated[
        str | None,
        typer.Option(
            help="A named style (see hwdiff styles), or a picture of a line in the handwriting to imitate; "
            "by default the model's own style."
        ),
    ] = None,
    style_encoder: StyleEncoder = "bundled",
    sampler: SamplerName = Sampler.eq12,
    steps: Steps = None,
    seed: Annotated[int, typer.Option(help="Another seed gives another version of the same text.")] = 0,
    guidance: Guidance = None,
    end_tokens: Annotated[
        int, typer.Option(help="End tokens after the text: 1, or 2 as in the authors' program.")
    ] = 1,
    padded_style: Annotated[
        bool,
        typer.Option(
            help="Pad the style image to 1400 pixels, as in training; the authors' program does not."
        ),
    ] = True,
    device: Device = None,
):
    """Write a text as handwriting."""
    # What is imported here is never garbage. Scanning it would take 0.4 s, at the start and at the end.
    gc.disable()
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
        sampler=sampler.value,
        steps=steps,
        seed=seed,
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

    from hwdiff.diffusion.generate import require_style_weights, sample
    from hwdiff.diffusion.style_gallery import load_styles
    from hwdiff.ink.plot import plot_inks, save_figure
    from hwdiff.model.checkpoint import load_model

    network, named = load_model(model, device), load_styles()
    require_style_weights(network, named.metadata["style_weights"])
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

    for name, page in sample_pages(load_model(model, device), seed, steps=steps, guidance=guidance):
        save_figure(page, out / f"{name}.png")
        print(f"wrote {out / f'{name}.png'}")


@command
def release(
    run: Annotated[Path, typer.Argument(help="The folder of a run of hwdiff train.")],
    data: Annotated[
        Path, typer.Option(help="Its dataset file. The styles are made from its training lines.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="The folder for small.safetensors and small-styles.safetensors."),
    ],
    style_encoder: StyleEncoder = "bundled",
    guidance: Annotated[float, typer.Option(help="The model's default guidance, see hwdiff write.")] = 1.0,
    points_per_character: Annotated[
        float, typer.Option(help="How many points the model writes per character of a text.")
    ] = 16.0,
    seed: Annotated[int, typer.Option(help="Seed of the lines written for the styles.")] = 0,
    device: Device = None,
):
    """Turn a training run into files to distribute.

    They are the weights in half precision, and named styles. A style is the features of a line that the model
    wrote, not of anyone's ink.
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
