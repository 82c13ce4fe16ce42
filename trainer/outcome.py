"""What the runs of a claim came to: one number per run and measure, comparisons, a verdict.

Nothing here runs or prints: run folders in, plain data out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from trainer.claim import Claim, Holds, Measure
from trainer.errors import DataError
from trainer.monitors.base import read_rows
from trainer.ops.statistics import student

SHOWS, FAILS, UNCLEAR = "shows", "does not show", "unclear"
"""Verdicts."""

HELDOUT = "heldout/"

Points = list[tuple[int, float]]
"""(step, value) by step."""


@dataclass(frozen=True, slots=True)
class Number:
    """What one measure made of one run."""

    value: float
    at_least: bool = False
    """A `steps_to` that was never reached: `value` is the last step."""

    def __str__(self) -> str:
        return f"{'> ' if self.at_least else ''}{figure(self.value)}"


Numbers = dict[str, dict[int, Number]]
"""{arm: {seed: number}} of one measure; runs that did not finish are not in it."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The method against one baseline in one measure, over the seeds that both have."""

    measure: str
    baseline: str
    seeds: tuple[int, ...]
    better_by: dict[str, float] | None
    """{mean, low, high, n} of the differences, positive where the method is better; low and high
    are the mean where there is one seed. None: no seed has both runs."""
    verdict: str
    why: str
    decides: bool


def points_of(folder: Path, metric: str) -> Points:
    """The values of a metric in a run folder, without those that were not numbers.

    `heldout/sampled`, `greedy`, `pass@k` and `maj@k`, and `heldout/PART/sampled` or `greedy` of a
    part of the reward, come from the evaluations, the one before the first step included. Raises
    `DataError` that names near metrics if there is none.
    """
    kind = metric.removeprefix(HELDOUT)
    rows = list(read_rows(folder / "metrics.jsonl"))
    if metric.startswith(HELDOUT) and (found := _evaluated(folder, kind)):
        return found
    found = [(row["step"], float(row[metric])) for row in rows if _is_number(row.get(metric))]
    if not found:
        logged = sorted({key for row in rows for key in row if _is_number(row[key])} - {"step"})
        family = [key for key in logged if key.split("/")[0] == metric.split("/")[0]] or logged
        raise DataError(
            f"{folder} logged no {metric!r}; it has {', '.join([*family, 'heldout/sampled'])}"
        )
    return found


def _evaluated(folder: Path, kind: str) -> Points:
    part, slash, last = kind.rpartition("/")
    base, at, k = kind.partition("@")
    found: Points = []
    for table in read_rows(folder / "evaluations.jsonl"):
        if slash:
            own = table["parts"].get(part, {}).get(last)
        else:
            own = table.get(f"{base}@k", {}).get(k) if at else table.get(kind)
        if isinstance(own, dict):
            found.append((table["step"], float(own["mean"])))
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def number_of(points: Sequence[tuple[int, float]], measure: Measure) -> Number:
    """`measure` of one run. `points` must not be empty."""
    windows = [points[max(0, i + 1 - measure.window) : i + 1] for i in range(len(points))]
    smooth = [(window[-1][0], fmean(value for _, value in window)) for window in windows]
    values = [value for _, value in smooth]
    if measure.steps_to is not None:
        wanted, low = measure.steps_to, measure.better == "lower"
        reached = (s for s, v in smooth if (v <= wanted if low else v >= wanted))
        step = next(reached, None)
        return Number(smooth[-1][0], at_least=True) if step is None else Number(step)
    if measure.take == "final":
        return Number(values[-1])
    if measure.take == "best":
        return Number(max(values) if measure.better == "higher" else min(values))
    return Number(_area(smooth))


def _area(points: Points) -> float:
    """Mean height under the line through the points."""
    width = points[-1][0] - points[0][0]
    if not width:
        return points[-1][1]
    pairs = pairwise(points)
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs) / width


def compare(claim: Claim, measure: Measure, numbers: Numbers, baseline: str) -> Comparison:
    """The verdict of one measure against one baseline, with the reason in plain words."""
    ours, theirs = numbers.get(claim.method, {}), numbers.get(baseline, {})
    seeds = tuple(seed for seed in ours if seed in theirs)
    if not seeds:
        missing = claim.method if not ours else baseline
        why = f"{missing} has no number" if not ours or not theirs else "no seed in common"
        return Comparison(measure.title, baseline, (), None, UNCLEAR, why, measure.decides)
    better = student([measure.sign * (ours[s].value - theirs[s].value) for s in seeds])
    apart = _apart([ours[s].value for s in seeds], [theirs[s].value for s in seeds])
    verdict, why = _judged(measure.holds, better, apart)
    if verdict == SHOWS and any(ours[seed].at_least for seed in seeds):
        verdict, why = UNCLEAR, f"{claim.method} did not get there with every seed"
    return Comparison(measure.title, baseline, seeds, better, verdict, why, measure.decides)


def _apart(ours: list[float], theirs: list[float]) -> bool:
    a, b = student(ours), student(theirs)
    return a["low"] > b["high"] or b["low"] > a["high"]


def _judged(holds: Holds, better: Mapping[str, float], apart: bool) -> tuple[str, str]:
    by, mean, single = holds.by, better["mean"], better["n"] == 1
    if holds.rule == "as_good":
        if mean <= -by:
            return FAILS, f"worse by {figure(-mean)} on average, allowed is {figure(by)}"
        if single:
            return UNCLEAR, "one seed has no interval"
        if better["low"] > -by:
            return SHOWS, f"no worse by more than {figure(by)}"
        return UNCLEAR, f"the interval reaches below -{figure(by)}"
    if mean <= by:
        asked = f", asked is more than {figure(by)}" if by else ""
        how = "better" if mean > 0 else "worse" if mean < 0 else "equal"
        return FAILS, f"{how} by {figure(abs(mean))} on average{asked}" if mean else f"equal{asked}"
    if holds.rule == "mean":
        return SHOWS, f"better on average{f' by more than {figure(by)}' if by else ''}"
    if single:
        return UNCLEAR, "better, but one seed has no interval"
    if holds.rule == "apart":
        if apart:
            return SHOWS, "better, and the intervals of the arms do not overlap"
        return UNCLEAR, "better on average, but the intervals of the arms overlap"
    if better["low"] > by:
        return SHOWS, f"the interval of the differences lies above {figure(by) if by else 0}"
    return UNCLEAR, f"better on average, but the interval reaches down to {figure(better['low'])}"


def overall(comparisons: Sequence[Comparison]) -> str:
    """`shows` if all that decide do; `does not show` if one of them does not; else `unclear`."""
    verdicts = [one.verdict for one in comparisons if one.decides]
    if FAILS in verdicts:
        return FAILS
    return SHOWS if verdicts and set(verdicts) == {SHOWS} else UNCLEAR


def figure(value: float) -> str:
    """`0.034`, `12.50`, `140.0`; a count of steps as it is."""
    if isinstance(value, int):
        return str(value)
    size = abs(value)
    return f"{value:.1f}" if size >= 100 else f"{value:.2f}" if size >= 10 else f"{value:.3f}"
