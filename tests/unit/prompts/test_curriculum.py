from __future__ import annotations

import math
from collections import Counter

import pytest
from pydantic import ValidationError

from trainer.errors import DataError
from trainer.types import Group, Rollout, Score

ARITHMETIC = {"type": "curriculum", "source": "synthetic/arithmetic"}  # levels 0, 1, 2


def group(prompt, *values):
    return Group(prompt, [Rollout(score=Score(value)) for value in values])


def drawn_at(stream, level):
    return next(p for p in iter(lambda: next(stream), None) if p.meta["level"] == level)


def test_the_pass_rate_is_an_exponential_average(build):
    stream = build(ARITHMETIC | {"decay": 0.8, "passed": 0.5}).stream(0)
    prompt = drawn_at(stream, 1)
    stream.observe(group(prompt, 1.0, 0.5, 0.4, None))  # 2 of 3 scored ones pass
    assert stream.state_dict()["rates"] == {"0": None, "1": pytest.approx(2 / 3), "2": None}
    stream.observe(group(prompt, 0.0))
    assert stream.state_dict()["rates"]["1"] == pytest.approx(0.8 * 2 / 3)
    stream.observe(group(prompt, None))
    stream.observe(Group(prompt, [Rollout()]))
    assert stream.state_dict()["rates"]["1"] == pytest.approx(0.8 * 2 / 3)


def test_shares_follow_the_formula(build):
    stream = build(ARITHMETIC | {"target": 0.5, "width": 0.25, "floor": 0.1}).stream(0)
    for level, value in ((0, 1.0), (1, 0.0)):
        stream.observe(group(drawn_at(stream, level), value))
    away, on = 0.1 + math.exp(-2), 1.1
    total = 2 * away + on
    assert stream.shares() == pytest.approx({"0": away / total, "1": away / total, "2": on / total})


def test_solved_and_hopeless_buckets_are_drawn_less(build):
    stream = build(ARITHMETIC).stream(0)
    for _ in range(300):
        prompt = next(stream)
        level = prompt.meta["level"]
        stream.observe(group(prompt, *{0: [1, 1], 1: [1, 0], 2: [0, 0]}[level]))
    counts = Counter(next(stream).meta["level"] for _ in range(200))
    assert counts[1] > 140
    assert min(counts[0], counts[2]) > 0


def test_resume_at_any_point(build, resumes):
    def observe(stream, prompt):
        stream.observe(group(prompt, float(prompt.meta["level"] < 1), 0.0))

    source = build(
        ARITHMETIC | {"source": {"type": "synthetic/arithmetic", "terms": 2, "max_value": 5}}
    )
    for n in (0, 1, 28, 29, 60):
        resumes(source, n, observe=observe)


def test_an_epoch_of_a_bucket_has_each_row_once(build):
    source = {"type": "synthetic/arithmetic", "terms": 2, "max_value": 5}
    stream = build(ARITHMETIC | {"source": source}).stream(0)
    prompts = [next(stream) for _ in range(200)]
    low = [p.id for p in prompts if p.meta["level"] == 0]
    size = len(set(low))
    assert sorted(low[:size]) == sorted(low[size : 2 * size])
    assert [p.serial for p in prompts] == list(range(200))


def test_heldout_is_the_sources(build):
    curriculum = build(ARITHMETIC)
    assert len(curriculum.heldout()) == 200
    assert curriculum.columns() == curriculum.source.columns()
    stream = curriculum.stream(0)
    held = {p.meta["question"] for p in curriculum.heldout()}
    assert not held & {next(stream).meta["question"] for _ in range(500)}


def test_a_missing_column_is_named(build):
    with pytest.raises(DataError, match=r"prompts.by: .*no column 'grade'.*level"):
        build(ARITHMETIC | {"by": "grade"}).stream(0)


def test_endless_sources_are_refused_until_limited(build):
    with pytest.raises(DataError, match=r"synthetic/countdown has 2147483648; set"):
        build(ARITHMETIC | {"source": "synthetic/countdown"}).stream(0)
    limited = {"type": "synthetic/countdown", "limit": 50}
    assert set(build(ARITHMETIC | {"source": limited}).stream(0).shares()) == {"3", "4"}


def test_a_source_without_rows_is_refused(build):
    members = {"a": {"prompts": "synthetic/arithmetic"}}
    with pytest.raises(ValidationError, match="needs a source of rows, mixture has none"):
        build(ARITHMETIC | {"source": {"type": "mixture", "members": members}})


def test_a_checkpoint_of_other_buckets_is_refused(build):
    state = build(ARITHMETIC).stream(0).state_dict()
    stream = build(ARITHMETIC | {"source": {"type": "synthetic/arithmetic", "terms": 2}}).stream(0)
    with pytest.raises(DataError, match=r"has buckets 0, 1, 2, the data now has 0, 1"):
        stream.load_state_dict(state)
