"""What the measurements say of the paper's claims: a verdict for each, by a stated rule."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from math import isnan, nan
from pathlib import Path

from hwdiff.diffusion.process import STEPS
from hwdiff.evaluation.spread import mean_sd
from hwdiff.evaluation.tables import FID, PAPER, PAPER_LINES, TOP, Table
from hwdiff.model.checkpoint import BUNDLED
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.json_values import parse_json

MEASUREMENTS = Path(__file__).parents[2] / "results" / "measurements"
COMPARE = "hwdiff compare-samplers --data iam.npz --sampler eq12 --steps 40,30,20 --spacing time"
REPRODUCED, PARTLY, DIFFERS, OPEN = "reproduced", "partly", "differs", "can't tell yet"
PAPERS = "the paper's network"
PAPER_PARAMETERS, PAPER_STEPS = 10_028_451, 60_000
ALIGNED = 0.9  # monotonicity and coverage above which attention counts as a diagonal
MARGIN = 0.05  # by which the CER may exceed that of real lines, or of 60 steps
RULE = (
    "Reproduced or differs: measured with the paper's network (10 028 451 parameters, trained to the end, "
    "60 000 steps or more, without guided attention, not distilled; style encoder, optimizer, batches and "
    "excerpts may differ) and method (guidance 1), and the 95 % interval of a difference (paired bootstrap "
    "over forms) lies on one side of the bound. With less training what a network can do already "
    "(spell, follow a style, attend, write in fewer steps) is partly reproduced, and all else stays open. "
    "The bound: 0; for legibility a CER "
    f"{100 * MARGIN:.0f} points above that of real lines, for 30 steps as much above that of 60. For style "
    "the difference is that of form retrieval in the style asked for and in foreign ones, for diversity that "
    "of the DTW distance by Eq. 9 and by Eq. 12 (bootstrap over texts). Spelling goes by the rank "
    "correlation of the monotonicity of attention with the CER, that of the real line held fixed (the same "
    "bootstrap). Attention has no interval: in each "
    f"line it must go forward on more than {100 * ALIGNED:.0f} % of its way and rest on as many of the "
    "letters. All else: can't tell yet."
)


@dataclass(frozen=True)
class Verdict:
    """A claim of the paper, and what was measured of it.

    paper: what the paper says.   here: what was measured, with its uncertainty.
    lines: how many lines, and seeds.   guidance: 1 in the paper.
    network: which one was measured.   verdict: `REPRODUCED`, `PARTLY`, `DIFFERS` or `OPEN`.
    command: that measures it.
    """

    claim: str
    paper: str
    here: str
    lines: str
    guidance: str
    network: str
    verdict: str
    command: str


def verdicts(measurements: str | Path = MEASUREMENTS) -> list[dict]:
    """The verdicts that the files of a folder of measurements allow, as rows of a table.

    measurements: as results/measurements of the project. [] where it has none, as in an installed package.
    Raises HwdiffError when a file of it is not what was measured.
    """
    folder = Path(measurements)
    found = []
    test, papers = folder / "evaluate-test" / "table1.json", folder / "evaluate-4500" / "table1.json"
    # The paper measures on training lines. What a network can do shows on lines that it has not seen.
    with _measured(papers, _table_of_papers_size) if papers.exists() else _measured(test, _table) as table:
        if table:
            found += [_distances(table), _eq12_or_eq9(table)]
            if "geometry_score" in table.values["eq12"]:
                found.append(_geometry(table))
    with _measured(test, _table) as table:
        if table:
            found += [_legible(table), _style(table)]
    with _measured(folder / "diversity.json", dict) as of:
        if of:
            found.append(_diversity(of))
    # Of the weights in the package, so that anyone can measure it again. Of several the furthest step counts.
    looked_at = folder.glob("attention/alignment-*.json")
    if path := max(looked_at, key=lambda path: (path.name, path), default=None):
        with _measured(path, dict) as of:
            found.append(_attention(of))
    with _measured(folder / "alignment.json", dict) as of:
        if of:
            found.append(_spelling(of))
    with _measured(folder / "samplers-fewer" / "table1.json", _table) as table:
        if table:
            found.append(_fewer_steps(table))
    return [asdict(verdict) for verdict in found]


def measured_table(name: str, measurements: str | Path = MEASUREMENTS) -> Table | None:
    """The table of a measurement, such as "samplers"; None where there is none.

    measurements: as for `verdicts`. Raises HwdiffError as there.
    """
    with _measured(Path(measurements) / name / "table1.json", _table) as table:
        return table


def network_title(model: dict) -> str:
    """What the network of a measurement is called, from its settings, such as "small, 33,145 steps"."""
    step, planned = model["step"], model.get("planned")
    if model.get("student"):
        return f"a student, {step:,} batches"
    steps = f"{step:,} of {planned:,} steps" if planned and planned > step else f"{step:,} steps"
    before = " from earlier weights" if model.get("init") else ""
    size = "of the paper's size" if model.get("parameters") == PAPER_PARAMETERS else "small"
    return f"{PAPERS if _is_papers(model) else size}, {steps}{before}"


def as_markdown(rows: list[dict]) -> str:
    """The rows of `verdicts` as a table in Markdown."""
    columns = [field.name for field in fields(Verdict)]
    cells = [[f"`{row[name]}`" if name == "command" else row[name] for name in columns] for row in rows]
    lines = (columns, ["---"] * len(columns), *cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


@contextmanager
def _measured(path: Path, kind: Callable[[object], object]) -> Iterator[object]:
    """The content of a JSON file as a `kind`; None without the file.

    Whatever the block raises, since the file holds something else, becomes an HwdiffError that names it.
    """
    try:
        yield kind(parse_json(path.read_bytes())) if path.exists() else None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        found = f"not a file of measurements ({type(error).__name__}: {error})"
        raise HwdiffError(f"{path}: {found}; restore it, or measure again") from error


def _table(content):
    return Table(**content)


def _table_of_papers_size(content):
    table = _table(content)
    found = (table.settings["split"], table.settings["lines"])
    if found != ("train", PAPER_LINES):
        raise ValueError(f"of {found[1]} lines of the split {found[0]}, not of {PAPER_LINES} of train")
    return table


def _evaluate(table):
    """The command that measured a table of `hwdiff evaluate`, without lines and seeds."""
    split, rows = table.settings["split"], table.settings.get("rows", {})
    chosen = f" --rows {','.join(rows)}" if set(rows) == {"eq12", "eq9"} else ""
    return f"hwdiff evaluate --data iam.npz --split {split}{chosen}"


def _about(table, command, better=None, *, is_skill=False):
    """The columns that verdicts of one table share.

    better: (low, high), an interval that lies above 0 where the claim holds; None where nothing can be
        compared.
    is_skill: of `_judge`.
    """
    settings = table.settings
    row = next(iter(settings.get("rows", {}).values()), {})  # the first is that of Eq. 12
    guidance, model = row.get("guidance", settings["writing"]["guidance"]), settings["model"]
    seeds = len(settings["seeds"])
    return {
        "lines": f"{settings['lines']} of the {settings['split']} split, {seeds} seed{'s' * (seeds > 1)}",
        "guidance": f"{guidance:g}",
        "network": network_title(model),
        "verdict": _judge(model, guidance, better, is_skill=is_skill),
        "command": _command(f"{command} --lines {settings['lines']} --seeds {seeds}", model),
    }


def _judge(model, guidance, better, *, is_skill=False):
    """The verdict by `RULE`.

    better: as for `_about`.
    is_skill: whether it is about what a network can do. Less training does not bring that about, as it may a
        difference between samplers.
    """
    if better is None or not _is_papers(model) or guidance != 1:
        return OPEN
    low, high = better
    if _is_trained(model):
        return REPRODUCED if low > 0 else DIFFERS if high < 0 else OPEN
    return PARTLY if is_skill and low > 0 else OPEN


def _is_papers(model):
    helped = model.get("guided_attention") or model.get("distilled")
    return model.get("parameters") == PAPER_PARAMETERS and not helped


def _command(command, model):
    """The command with the network that was measured, the default one where an older file does not say."""
    file = model.get("file", "pretrained.safetensors")
    name = {"writer": "small"}.get(Path(file).stem, Path(file).stem)  # what the small one was called before
    return command if name == "pretrained" else f"{command} --model {name if name in BUNDLED else file}"


def _is_trained(model):
    # Later than the paper's if it is to be trained for longer: its learning rate has not fallen before.
    return _is_papers(model) and model["step"] >= max(PAPER_STEPS, model.get("planned") or 0)


def _interval(table, row, other, key):
    """The interval (low, high) of `row` less `other`; None where an older file has none."""
    found = table.differences.get(row, {}).get(other, {}).get(key)
    return found and tuple(found[1:])


def _below_margin(table, row, other):
    """How far the CER of `row` stays below that of `other` and MARGIN, as an interval."""
    found = _interval(table, row, other, "cer")
    return found and (MARGIN - found[1], MARGIN - found[0])


def _spread(table, row, key, factor=1.0, digits=2):
    """Mean ± standard deviation over the seeds; of one seed its value."""
    mean, sd = mean_sd(table.values[row][key])
    deviation = "" if isnan(sd) else f" ± {factor * sd:.{digits}f}"
    return f"{factor * mean:.{digits}f}{deviation}"


def _distances(table):
    fid, score = PAPER["eq12"]
    kernel = [_spread(table, row, "kernel_distance", 1000) for row in ("eq12", "ground_truth")]
    here = f"kernel distance x 1000 {kernel[0]}, of real lines {kernel[1]}"
    return Verdict(
        "Table 1, Eq. 12",
        f"FID {fid:g}, Geometry Score {score:g} (4 500 lines)",
        f"FID {_spread(table, 'eq12', 'distance')}, {here}" if table.distance == FID else f"{here}; no FID",
        **_about(table, _evaluate(table)),
    )


def _eq12_or_eq9(table):
    kernel, cer = (_interval(table, "eq9", "eq12", key) for key in ("kernel_distance", "cer"))
    said = [
        f"{factor * found[0]:.1f} to {factor * found[1]:.1f}".replace("-", "−") if found else "unknown"
        for factor, found in ((1000, kernel), (100, cer))
    ]
    return Verdict(
        "Eq. 12 draws better than Eq. 9",
        f"FID {PAPER['eq12'][0]:g} against {PAPER['eq9'][0]:g} (the table; the text says the reverse)",
        f"Eq. 9 less Eq. 12: kernel distance x 1000 {said[0]}, CER {said[1]} points",
        **_about(table, _evaluate(table), kernel),
    )


def _legible(table):
    rates = [_spread(table, row, "cer", 100, 1) for row in ("eq12", "ground_truth")]
    return Verdict(
        "the text can be read",
        "samples (Fig. 3, 11 to 15)",
        f"CER {rates[0]} %, of real lines {rates[1]} %",
        **_about(table, _evaluate(table), _below_margin(table, "eq12", "ground_truth"), is_skill=True),
    )


def _style(table):
    key = "form_top10"  # by features in which no network has a part
    rates = [_spread(table, row, key, 100, 1) for row in ("eq12", "ground_truth")]
    alone = "how often the text alone finds it was not measured"
    if "eq12_foreign" in table.values:
        alone = f"in foreign styles {_spread(table, 'eq12_foreign', key, 100, 1)} %"
    return Verdict(
        "the style of an image is followed",
        "samples (Fig. 11 to 15)",
        f"its form among the {TOP} nearest by hand-made features: {rates[0]} %, of real lines {rates[1]} %, "
        f"{alone}",
        **_about(table, _evaluate(table), _interval(table, "eq12", "eq12_foreign", key), is_skill=True),
    )


def _geometry(table):
    def scores(key):
        rows = {"Eq. 12": "eq12", "Eq. 9": "eq9", "real lines": "ground_truth"}
        return ", ".join(f"{name} {_spread(table, row, key, 1000)}" for name, row in rows.items())

    papers = [1000 * PAPER[row][1] for row in ("eq12", "eq9", "ground_truth")]
    return Verdict(
        "Table 1, Geometry Score",
        "x 1000: Eq. 12 {:.2f}, Eq. 9 {:.2f}, real lines {:.2f}".format(*papers),
        f"x 1000: {scores('geometry_score')}; without pen flag {scores('geometry_score_offsets')}",
        **_about(table, _evaluate(table)),
    )


def _diversity(of):
    settings, (value, low, high) = of["settings"], of["differences"]["eq9"]["eq12"]["dtw"]
    model, guidance, texts = settings["model"], settings["rows"]["eq12"]["guidance"], len(settings["lines"])
    return Verdict(
        "Eq. 12 costs diversity",
        "said, not measured",
        f"DTW distance of lines of one text, Eq. 9 less Eq. 12: {value:.2f} ({low:.2f} to {high:.2f})",
        f"{texts} texts of the {settings['split']} split, {settings['repeats']} lines each",
        f"{guidance:g}",
        network_title(model),
        _judge(model, guidance, (low, high)),
        _command(
            f"hwdiff diversity --data iam.npz --split {settings['split']} --texts {texts} "
            f"--repeats {settings['repeats']}",
            model,
        ),
    )


def _spelling(of):
    settings = of["settings"]
    found = {
        key: nan if number is None else number  # where no two lines differ
        for key, number in of["relations"]["monotonicity"].items()
    }
    low, high = -found["given_high"], -found["given_low"]  # the further it goes forward, the fewer errors
    is_papers_way = (settings["sampler"], settings["steps"], settings["block"]) == ("eq12", STEPS, -1)
    return Verdict(
        "where attention strays, spelling suffers",
        "examples",
        f"rank correlation of its straying (monotonicity) with the CER {-found['given_text']:.2f} "
        f"({low:.2f} to {high:.2f})",
        f"{settings['lines']} of the {settings['split']} split",
        f"{settings['guidance']:g}",
        network_title(settings["model"]),
        _judge(settings["model"], settings["guidance"], (low, high) if is_papers_way else None),
        _command(
            f"hwdiff alignment --data iam.npz --split {settings['split']} --lines {settings['lines']} "
            f"--guidance {settings['guidance']:g} -o alignment.csv",
            settings["model"],
        ),
    )


def _attention(of):
    forward = [value for line in of["monotonicity_at"].values() for value in line.values()]
    covered = [line["coverage"] for line in of["scores"].values()]
    least = min(forward + covered) - ALIGNED
    return Verdict(
        "attention follows the text (Fig. 4)",
        "a diagonal at t = 55, 30 and 5",
        f"at these steps it goes forward on {_percents(forward)} of its way; in the later half of all it "
        f"rests on {_percents(covered)} of the letters",
        f"{len(covered)} texts, one seed each",
        f"{of['guidance']:g}",
        network_title(of),
        _judge(of, of["guidance"], (least, least), is_skill=True),
        _command("hwdiff attention", of),
    )


def _percents(shares):
    return f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %"


def _fewer_steps(table):
    rows = {60: "eq12_60", 40: "eq12_40_time", 30: "eq12_30_time", 20: "eq12_20_time"}
    said = [f"{_spread(table, row, 'cer', 100, 1)} % in {steps}" for steps, row in rows.items()]
    guidance = table.settings["writing"]["guidance"]
    return Verdict(
        "other numbers of steps need no training",
        "said, not shown",
        f"CER {', '.join(said)} steps",
        **_about(
            table,
            f"{COMPARE} --guidance {guidance:g}",
            _below_margin(table, rows[30], rows[60]),
            is_skill=True,
        ),
    )
