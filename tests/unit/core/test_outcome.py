"""Numbers of runs, comparisons over seeds, verdicts, and how they are shown."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from PIL import Image
from rich.console import Console

from trainer.claim import Claim, Measure
from trainer.errors import DataError
from trainer.ops.statistics import student
from trainer.outcome import (
    FAILS,
    SHOWS,
    UNCLEAR,
    Number,
    compare,
    figure,
    number_of,
    overall,
    points_of,
)
from trainer.outcome_page import (
    Outcome,
    as_json,
    claims_page,
    draw,
    markdown,
    number_sheets,
    page,
)

POINTS = [(0, 0.1), (1, 0.5), (3, 0.3), (4, 0.9), (6, 0.7)]


def measure(**fields) -> Measure:
    return Measure(**{"metric": "heldout/sampled", **fields})


def claim_with(*measures: Measure) -> Claim:
    return Claim(says="it is better", arms={"ours": {}, "base": {}}, measure=list(measures))


def judged(ours, theirs, **fields):
    """The comparison of two arms with these values by seed."""
    one = measure(**fields)
    numbers = {
        arm: {s: v if isinstance(v, Number) else Number(v) for s, v in enumerate(values)}
        for arm, values in (("ours", ours), ("base", theirs))
    }
    return compare(claim_with(one), one, numbers, "base")


# -- numbers ------------------------------------------------------------------------------------


def test_students_interval():
    found = student([1.0, 2.0, 3.0])  # s = 1, t(2) = 4.303
    assert found["mean"] == 2.0
    assert found["high"] - 2.0 == pytest.approx(4.303 / 3**0.5)
    assert found["low"] == pytest.approx(4.0 - found["high"])
    assert student([5.0]) == {"mean": 5.0, "low": 5.0, "high": 5.0, "n": 1}
    assert student([0.5, 0.5])["low"] == 0.5
    wide = student([0.0, 2.0] * 50)  # beyond the table: t(99) = 1.984
    assert wide["high"] == pytest.approx(1 + 1.984 * (100 / 99 / 100) ** 0.5, abs=1e-3)
    with pytest.raises(ValueError, match="no values"):
        student([])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Number(0.7)),
        ({"window": 2}, Number(0.8)),
        ({"take": "best"}, Number(0.9)),
        ({"take": "best", "better": "lower"}, Number(0.1)),
        ({"take": "best", "window": 9}, Number(0.5)),
        # (0.1+0.5)/2 + 2 (0.5+0.3)/2 + (0.3+0.9)/2 + 2 (0.9+0.7)/2 = 3.3, over 6 steps
        ({"take": "area"}, Number(0.55)),
        ({"steps_to": 0.5}, Number(1)),
        ({"steps_to": 0.51}, Number(4)),
        ({"steps_to": 0.95}, Number(6, at_least=True)),
        ({"steps_to": 0.2, "better": "lower"}, Number(0)),
        ({"steps_to": 0.6, "window": 2}, Number(4)),
    ],
)
def test_one_number_of_a_run(fields, expected):
    found = number_of(POINTS, measure(**fields))
    assert found.value == pytest.approx(expected.value)
    assert found.at_least == expected.at_least


def test_the_area_of_one_value_is_the_value():
    assert number_of([(5, 0.3)], measure(take="area")).value == 0.3


def test_figures():
    assert [figure(v) for v in (0.12345, -0.5, 12.345, 140.26, 40)] == [
        "0.123",
        "-0.500",
        "12.35",
        "140.3",
        "40",
    ]
    assert str(Number(40, at_least=True)) == "> 40"


# -- run folders --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    metrics = [
        {"step": 1, "reward/mean": 0.5, "rollout/length_wrong": 12},
        {"step": 2, "reward/mean": 0.75, "heldout/accuracy": 0.8},
        {"step": 3, "reward/mean": None},
    ]
    tables = [
        {
            "step": step,
            "sampled": {"mean": mean},
            "greedy": None,
            "parts": {"iou": {"sampled": {"mean": mean / 2}, "greedy": None}} | kinds,
            "pass@k": {"4": {"mean": 1.0}},
        }
        for step, mean, kinds in (
            (0, 0.4, {}),
            (2, 0.8, {"task/color": {"sampled": {"mean": 0.6}, "greedy": {"mean": 0.7}}}),
        )
    ]
    for name, rows in (("metrics", metrics), ("evaluations", tables)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def test_metrics_and_evaluations_of_a_run(folder):
    assert points_of(folder, "reward/mean") == [(1, 0.5), (2, 0.75)]
    assert points_of(folder, "rollout/length_wrong") == [(1, 12.0)]
    assert points_of(folder, "heldout/sampled") == [(0, 0.4), (2, 0.8)]
    assert points_of(folder, "heldout/pass@4") == [(0, 1.0), (2, 1.0)]
    assert points_of(folder, "heldout/accuracy") == [(2, 0.8)]


def test_parts_of_the_evaluations(folder):
    assert points_of(folder, "heldout/iou/sampled") == [(0, 0.2), (2, 0.4)]
    assert points_of(folder, "heldout/task/color/sampled") == [(2, 0.6)]
    assert points_of(folder, "heldout/task/color/greedy") == [(2, 0.7)]


@pytest.mark.parametrize(
    "metric", ["reward/man", "heldout/greedy", "heldout/pass@2", "heldout/iou/greedy"]
)
def test_a_metric_that_was_not_logged_names_those_that_were(folder, metric):
    with pytest.raises(DataError, match=rf"logged no {metric!r}; it has .*heldout/sampled"):
        points_of(folder, metric)


# -- verdicts -----------------------------------------------------------------------------------

CLEAR, BASE = [0.9, 0.91, 0.92], [0.8, 0.81, 0.82]
NOISY = [0.9, 0.7, 0.95]


@pytest.mark.parametrize(
    ("ours", "theirs", "fields", "verdict"),
    [
        (CLEAR, BASE, {}, SHOWS),
        (CLEAR, BASE, {"holds": {"by": 0.05}}, SHOWS),
        (CLEAR, BASE, {"holds": {"by": 0.11}}, FAILS),
        (NOISY, BASE, {}, UNCLEAR),
        (BASE, CLEAR, {}, FAILS),
        (BASE, BASE, {}, FAILS),
        (BASE, CLEAR, {"better": "lower"}, SHOWS),
        (CLEAR, BASE, {"holds": "apart"}, SHOWS),
        ([0.5, 0.6, 0.7], [0.45, 0.55, 0.65], {}, SHOWS),  # paired by seed: always 0.05 better
        ([0.5, 0.6, 0.7], [0.45, 0.55, 0.65], {"holds": "apart"}, UNCLEAR),
        (NOISY, BASE, {"holds": "mean"}, SHOWS),
        (NOISY, BASE, {"holds": {"rule": "mean", "by": 0.05}}, FAILS),
        ([0.9], [0.8], {"holds": "mean"}, SHOWS),
        ([0.9], [0.8], {}, UNCLEAR),
        ([0.7], [0.8], {}, FAILS),
        ([0.79, 0.81, 0.82], BASE, {"holds": {"rule": "as_good", "by": 0.05}}, SHOWS),
        (CLEAR, BASE, {"holds": {"rule": "as_good", "by": 0.05}}, SHOWS),
        (NOISY, BASE, {"holds": {"rule": "as_good", "by": 0.05}}, UNCLEAR),
        ([0.7, 0.71, 0.72], BASE, {"holds": {"rule": "as_good", "by": 0.05}}, FAILS),
        ([0.8], [0.8], {"holds": {"rule": "as_good", "by": 0.05}}, UNCLEAR),
    ],
)
def test_verdicts(ours, theirs, fields, verdict):
    found = judged(ours, theirs, **fields)
    assert found.verdict == verdict
    assert found.why


def test_a_method_that_never_arrives_cannot_show_speed():
    late = [Number(50, at_least=True)] * 3
    assert judged([Number(20)] * 3, late, steps_to=0.9).verdict == SHOWS
    assert judged(late, late, steps_to=0.9).verdict == FAILS
    mixed = [Number(20), Number(21), Number(49, at_least=True)]
    found = judged(mixed, [Number(200)] * 3, steps_to=0.9)
    assert (found.verdict, found.why) == (UNCLEAR, "ours did not get there with every seed")


def test_only_seeds_of_both_arms_are_compared():
    one = measure()
    numbers = {
        "ours": {0: Number(0.9), 2: Number(0.8)},
        "base": {0: Number(0.5), 1: Number(0.99)},
    }
    found = compare(claim_with(one), one, numbers, "base")
    assert found.seeds == (0,)
    assert found.better_by["mean"] == pytest.approx(0.4)
    found = compare(claim_with(one), one, {"ours": {}, "base": {0: Number(1.0)}}, "base")
    assert (found.verdict, found.better_by, found.why) == (UNCLEAR, None, "ours has no number")


def test_the_whole_claim():
    good, bad = judged(CLEAR, BASE), judged(BASE, CLEAR)
    unclear = judged(NOISY, BASE)
    assert overall([good, good]) == SHOWS
    assert overall([good, unclear]) == UNCLEAR
    assert overall([good, unclear, bad]) == FAILS
    assert overall([good, replace(bad, decides=False)]) == SHOWS
    assert overall([]) == UNCLEAR


# -- pages --------------------------------------------------------------------------------------


@pytest.fixture
def outcome() -> Outcome:
    first = measure(take="area", name="accuracy | area")
    second = measure(metric="reward/mean", steps_to=0.9, decides=False)
    claim = claim_with(first, second)
    curves = {
        arm: {
            seed: [(step, base + 0.01 * seed + 0.1 * step) for step in range(6)]
            for seed in (0, 1, 2)
        }
        for arm, base in (("ours", 0.45), ("base", 0.2))
    }
    numbers = {
        one.title: {
            arm: {seed: number_of(points, one) for seed, points in runs.items()}
            for arm, runs in curves.items()
        }
        for one in claim.measure
    }
    del numbers[second.title]["base"][1]
    return Outcome(
        name="demo",
        claim=claim,
        scale="tiny",
        seeds=(0, 1, 2),
        arms={"ours": "cohort train r.yaml", "base": "cohort train r.yaml loss=nll"},
        steps=5,
        curves={one.title: curves for one in claim.measure},
        numbers=numbers,
        comparisons=[compare(claim, one, numbers[one.title], "base") for one in claim.measure],
        problems=["base_seed1 failed: ValueError: x"],
    )


def test_markdown(outcome):
    text = markdown(outcome)
    assert "# demo: it is better" in text
    assert "**The claim shows here.** (scale tiny, 5 steps, 3 seeds)" in text
    assert "| arm | seed 0 | seed 1 | seed 2 | mean, 95 % interval |" in text
    assert "| ours | 0.700 | 0.710 | 0.720 | 0.710 ± 0.025 |" in text
    assert "| base | > 5 | failed | > 5 | ≥ 5.000 ± 0.000 |" in text
    assert "accuracy \\| area" in text
    assert "- base: `cohort train r.yaml loss=nll`" in text
    assert "- base_seed1 failed: ValueError: x" in text


def test_an_arm_without_the_metric_has_no_row_and_one_that_failed_has(outcome):
    first, _second = outcome.claim.measure
    outcome.arms |= {"other": "cohort train r.yaml"}
    outcome.numbers[first.title]["other"] = {}
    with_it, without = (rows for _title, _header, rows in number_sheets(outcome))
    assert [row[0] for row in with_it] == ["ours", "base", "other"]
    assert with_it[2][1:] == ["failed", "failed", "failed", "-"]
    assert [row[0] for row in without] == ["ours", "base"]


def test_the_page_says_it_in_words(outcome):
    out = io.StringIO()
    Console(file=out, width=120).print(page(outcome))
    text = out.getvalue()
    assert "The claim shows here." in text
    assert "shows: accuracy | area, ours against base: better by +0.25 [+0.25, +0.25]" in text
    assert "✗ base_seed1 failed" in text


def test_arms_without_the_method_are_not_compared(outcome):
    outcome.comparisons = []
    assert "shows here" not in markdown(outcome)
    assert json.loads(as_json(outcome))["verdict"] is None


def test_results_are_plain_json(outcome):
    tree = json.loads(as_json(outcome))
    assert tree["verdict"] == SHOWS
    assert tree["numbers"]["accuracy | area"]["ours"]["1"]["value"] == pytest.approx(0.71)
    assert tree["comparisons"][0]["better_by"]["n"] == 3


def test_the_plot(outcome, tmp_path):
    path = tmp_path / "curves.png"
    draw(outcome, path)
    with Image.open(path) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert {(37, 99, 235), (234, 88, 12)} <= colours  # both arms
    outcome.curves = {title: {} for title in outcome.curves}
    draw(outcome, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_claims_are_listed(outcome):
    out = io.StringIO()
    Console(file=out, width=120).print(claims_page({"demo": outcome.claim}))
    assert "it is better" in out.getvalue()
    assert "ours vs base" in out.getvalue()
    assert "6" in out.getvalue()
