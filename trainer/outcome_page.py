"""The result of `cohort reproduce` for people: tables in the terminal and in Markdown, a plot."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from trainer.claim import Claim, Measure
from trainer.curves import BLUE, GREY, ORANGE, smooth
from trainer.ops.statistics import student
from trainer.outcome import (
    FAILS,
    SHOWS,
    UNCLEAR,
    Comparison,
    Number,
    Numbers,
    Points,
    figure,
    overall,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SENTENCES = {
    SHOWS: "The claim shows here.",
    FAILS: "The claim does not show here.",
    UNCLEAR: "It is unclear whether the claim shows here.",
}
COLOURS = {SHOWS: "green", FAILS: "red", UNCLEAR: "yellow"}
LINES = (BLUE, ORANGE, "#16a34a", "#9333ea", GREY, "#be185d", "#0891b2")
"""Of the arms, the method first."""

ROUGH = 30
"""A curve with more values than this is smoothed in the plot."""


@dataclass
class Outcome:
    """All that a reproduction found."""

    name: str
    claim: Claim
    scale: str
    seeds: tuple[int, ...]
    arms: dict[str, str]
    """{arm: the command that runs it}."""
    steps: int
    curves: dict[str, dict[str, dict[int, Points]]]
    """{measure: {arm: {seed: points}}}."""
    numbers: dict[str, Numbers]
    """{measure: {arm: {seed: number}}}; without the arms that the measure does not compare and
    whose runs do not have the metric."""
    comparisons: list[Comparison]
    problems: list[str] = field(default_factory=list)
    """Runs that failed and metrics that are missing, one line each."""

    @property
    def verdict(self) -> str:
        return overall(self.comparisons)


def claims_page(claims: Mapping[str, Claim]) -> RenderableType:
    """What can be reproduced."""
    if not claims:
        return Text("no recipe in recipes/ has a `claim:`", "yellow")
    table = Table(title="claims", title_style="bold", title_justify="left")
    for name in ("recipe", "says", "arms", "measures", "runs"):
        table.add_column(name, justify="right" if name == "runs" else "left", overflow="fold")
    for name, claim in claims.items():
        arms = " vs ".join(claim.arms)
        titles = "; ".join(measure.title for measure in claim.measure)
        runs = str(len(claim.arms) * len(claim.seeds))
        table.add_row(*(Text(cell) for cell in (name, claim.says, arms, titles, runs)))
    return Group(table, Text("cohort reproduce RECIPE runs one of them", "dim"))


Sheet = tuple[str, list[str], list[list[str]]]
"""Title, header, rows."""


def number_sheets(outcome: Outcome) -> Iterator[Sheet]:
    """One table per measure: arms by seeds."""
    for measure in outcome.claim.measure:
        aim = "fewer" if measure.steps_to is not None else measure.better
        title = f"{measure.title} ({aim} is better)"
        header = ["arm", *(f"seed {seed}" for seed in outcome.seeds), "mean, 95 % interval"]
        rows = []
        for arm in outcome.arms:
            own = outcome.numbers[measure.title].get(arm)
            if own is None:
                continue
            cells = [str(own[seed]) if seed in own else "failed" for seed in outcome.seeds]
            rows.append([arm, *cells, mean_and_interval(list(own.values()))])
        yield title, header, rows


def comparison_sheet(outcome: Outcome) -> Sheet:
    """The verdicts."""
    header = ["measure", f"{outcome.claim.method} against", "better by", "seeds", "verdict", "why"]
    rows = []
    for one in outcome.comparisons:
        better = "-"
        if one.better_by is not None:
            better = f"{one.better_by['mean']:+.3g}"
            if one.better_by["n"] > 1:
                better += f" [{one.better_by['low']:+.3g}, {one.better_by['high']:+.3g}]"
        verdict, why = (one.verdict, one.why) if one.decides else ("not counted", "")
        rows.append([one.measure, one.baseline, better, str(len(one.seeds)), verdict, why])
    return "the claim", header, rows


def mean_and_interval(numbers: Sequence[Number]) -> str:
    """`0.912 ± 0.034`; `≥` where a run never got where `steps_to` asks."""
    if not numbers:
        return "-"
    at_least = "≥ " if any(number.at_least for number in numbers) else ""
    found = student([number.value for number in numbers])
    spread = f" ± {figure(found['high'] - found['mean'])}" if found["n"] > 1 else ""
    return f"{at_least}{figure(found['mean'])}{spread}"


def page(outcome: Outcome) -> RenderableType:
    """For the terminal."""
    parts: list[RenderableType] = [
        Rule(),
        Text(f"{outcome.name}: {outcome.claim.says}", "bold"),
        Text(),
    ]
    for sheet in number_sheets(outcome):
        parts += [_rich(sheet), Text()]
    if outcome.comparisons:
        parts += [*_lines(outcome), Text()]
        style = f"bold {COLOURS[outcome.verdict]}"
        parts.append(Text(f"{SENTENCES[outcome.verdict]} {_where(outcome)}", style))
    else:
        parts.append(Text("Nothing is compared: the method or its baselines were left out."))
    parts += [Text(f"✗ {line}", "red") for line in outcome.problems]
    return Group(*parts)


def _lines(outcome: Outcome) -> Iterator[Text]:
    """The verdicts, each a line with its reason."""
    _, _, rows = comparison_sheet(outcome)
    for measure, baseline, better, seeds, verdict, why in rows:
        line = Text(f"{verdict}: ", COLOURS.get(verdict, "dim"))
        line.append(f"{measure}, {outcome.claim.method} against {baseline}: ", "default")
        line.append(f"better by {better} over {seeds} seeds", "default")
        line.append(f"; {why}" if why else "", "default")
        yield line


def _rich(sheet: Sheet) -> Table:
    title, header, rows = sheet
    table = Table(title=title, title_style="bold", title_justify="left")
    for name in header:
        numeric = name.startswith(("seed", "mean"))
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def markdown(outcome: Outcome) -> str:
    """table.md."""
    lines = [f"# {outcome.name}: {outcome.claim.says}", ""]
    if outcome.comparisons:
        lines += [f"**{SENTENCES[outcome.verdict]}** {_where(outcome)}", ""]
    sheets = [*number_sheets(outcome)]
    if outcome.comparisons:
        sheets.append(comparison_sheet(outcome))
    for title, header, rows in sheets:
        lines += [f"**{title}**", ""]
        lines += [_row(header), _row(["---"] * len(header)), *map(_row, rows), ""]
    lines += ["Settings of the arms:", ""]
    lines += [f"- {arm}: `{command}`" for arm, command in outcome.arms.items()]
    if outcome.problems:
        lines += ["", "Problems:", "", *(f"- {line}" for line in outcome.problems)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _where(outcome: Outcome) -> str:
    seeds = "1 seed" if len(outcome.seeds) == 1 else f"{len(outcome.seeds)} seeds"
    return f"(scale {outcome.scale}, {outcome.steps} steps, {seeds})"


def as_json(outcome: Outcome) -> str:
    """results.json: the claim, every number, every comparison. No clock in it: the same runs give
    the same bytes."""
    numbers = {
        title: {
            arm: {str(seed): asdict(number) for seed, number in own.items()}
            for arm, own in arms.items()
        }
        for title, arms in outcome.numbers.items()
    }
    tree: dict[str, Any] = {
        "name": outcome.name,
        "verdict": outcome.verdict if outcome.comparisons else None,
        "claim": outcome.claim.model_dump(mode="json"),
        "scale": outcome.scale,
        "steps": outcome.steps,
        "seeds": list(outcome.seeds),
        "arms": outcome.arms,
        "numbers": numbers,
        "comparisons": [asdict(one) for one in outcome.comparisons],
        "problems": outcome.problems,
    }
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def draw(outcome: Outcome, path: Path) -> None:
    """A row per measure: the curves of the arms (mean over seeds, band from the lowest to the
    highest seed), and the number of each run with the mean of each arm."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measures = [m for m in outcome.claim.measure if outcome.curves[m.title]]
    if not measures:
        return
    style: dict[Any, Any] = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "font.size": 10,
    }
    heights = [3.6, *([2.6] * (len(measures) - 1))]
    with mpl.rc_context(style):
        figure_ = Figure(figsize=(11, 1.0 + sum(heights)), dpi=120, layout="constrained")
        FigureCanvasAgg(figure_)
        title = textwrap.fill(f"{outcome.name}: {outcome.claim.says}", 95, break_on_hyphens=False)
        if outcome.comparisons:
            title += f"\n{SENTENCES[outcome.verdict]} {_where(outcome)}"
        figure_.suptitle(title, fontsize=11.5, fontweight="bold")
        grid = figure_.add_gridspec(len(measures), 2, width_ratios=[2.6, 1], height_ratios=heights)
        colours = dict(zip(outcome.claim.arms, LINES * len(outcome.claim.arms), strict=False))
        for row, measure in enumerate(measures):
            axes = figure_.add_subplot(grid[row, 0])
            _curves(axes, measure, outcome.curves[measure.title], colours)
            axes.legend(frameon=False, loc="best", fontsize=9)
            dots = figure_.add_subplot(grid[row, 1])
            _dots(dots, measure, outcome.numbers[measure.title], colours)
        note = "lines: mean over seeds; bands: lowest to highest seed; dots: runs; bars: mean"
        figure_.supxlabel(note, fontsize=8.5, color="#6b7280")
        figure_.savefig(path)


def _curves(
    axes: Axes, measure: Measure, arms: dict[str, dict[int, Points]], colours: Mapping[str, str]
) -> None:
    axes.set_title(measure.metric, fontsize=10, loc="left")
    axes.set_xlabel("step")
    for arm, runs in arms.items():
        by_seed = [dict(points) for points in runs.values()]
        steps = sorted(set.intersection(*(set(one) for one in by_seed)))
        if not steps:
            continue
        rows = [[one[step] for step in steps] for one in by_seed]
        if len(steps) > ROUGH:
            rows = [smooth(row) for row in rows]
        columns = list(zip(*rows, strict=True))
        means = [fmean(column) for column in columns]
        marker = "o" if len(steps) <= ROUGH else None
        axes.plot(steps, means, color=colours[arm], lw=2, marker=marker, ms=3.5, label=arm)
        if len(rows) > 1:
            low, high = [min(c) for c in columns], [max(c) for c in columns]
            axes.fill_between(steps, low, high, color=colours[arm], alpha=0.15, lw=0)
    if measure.steps_to is not None:
        axes.axhline(measure.steps_to, color="black", lw=1, ls=":", alpha=0.6)


def _dots(axes: Axes, measure: Measure, numbers: Numbers, colours: Mapping[str, str]) -> None:
    axes.set_title(textwrap.fill(measure.title, 34), fontsize=10, loc="left")
    measured = {arm: runs for arm, runs in numbers.items() if runs}
    for place, (arm, runs) in enumerate(measured.items()):
        values = [number.value for number in runs.values()]
        apart = min(0.08, 0.5 / len(values))  # so that many dots stay on their arm's bar
        spread = [apart * (i - (len(values) - 1) / 2) for i in range(len(values))]
        across = [place + shift for shift in spread]
        axes.scatter(across, values, color=colours[arm], s=26, alpha=0.75, lw=0, zorder=3)
        mean = fmean(values)
        axes.hlines(mean, place - 0.28, place + 0.28, color=colours[arm], lw=2)
        at_least = "≥ " if any(number.at_least for number in runs.values()) else ""
        axes.annotate(
            f"{at_least}{figure(mean)}",
            (place + 0.3, mean),
            textcoords="offset points",
            xytext=(2, 0),
            va="center",
            fontsize=9,
            color=colours[arm],
        )
    names = [textwrap.fill(arm.replace("_", " "), 12) for arm in measured]
    axes.set_xticks(range(len(measured)), names)
    axes.set_xlim(-0.6, len(measured) - 0.1)
    axes.margins(y=0.15)
    axes.grid(axis="x", visible=False)
