from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trainer.types import Group, Rollout, Score

SMALL = {"type": "synthetic/arithmetic", "terms": 2, "max_value": 3}  # 16 problems, 13 of training


def recipe(**weights):
    members = {name: {"prompts": SMALL, "weight": weight} for name, weight in weights.items()}
    return {"type": "mixture", "members": members}


@settings(max_examples=25, deadline=None)
@given(a=st.floats(0.1, 9), b=st.floats(0.1, 9), c=st.floats(0.1, 9), n=st.integers(1, 120))
def test_after_any_number_of_prompts_the_shares_are_right(build, a, b, c, n):
    stream = build(recipe(a=a, b=b, c=c)).stream(0)
    counts = Counter(p.id.split("/")[0] for p in islice(iter(lambda: next(stream), None), n))
    for name, weight in (("a", a), ("b", b), ("c", c)):
        assert abs(counts[name] - n * weight / (a + b + c)) <= 2


@settings(max_examples=20, deadline=None)
@given(n=st.integers(0, 60))
def test_resume_at_any_point(build, resumes, n):
    resumes(build(recipe(a=1, b=2.5)), n)


def test_members_of_the_same_kind_have_orders_of_their_own(build):
    stream = build(recipe(a=1, b=1)).stream(0)
    ids = [next(stream).id.split("/") for _ in range(20)]
    assert [i for name, i in ids if name == "a"] != [i for name, i in ids if name == "b"]


def test_heldout_takes_the_members_in_turn(build):
    source = build(recipe(a=1, b=5))
    prompts = source.heldout(4)
    assert [p.id.split("/")[:2] for p in prompts] == [["heldout", n] for n in "abab"]
    assert [p.serial for p in prompts] == [-1, -2, -3, -4]
    assert len(source.heldout()) == 6


def test_columns_are_those_of_every_member(build):
    members = {"a": {"prompts": SMALL}, "b": {"prompts": "synthetic/shapes"}}
    columns = build({"type": "mixture", "members": members}).columns()
    assert {"answer", "meta.level", "meta.demonstration"} <= columns
    assert not columns & {"meta.numbers", "meta.items", "images"}


def test_a_member_learns_of_its_own_groups(build):
    curriculum = {"type": "curriculum", "source": "synthetic/arithmetic"}
    nested = {"type": "mixture", "members": {"inner": {"prompts": curriculum}}}
    source = build({"type": "mixture", "members": {"x": {"prompts": nested}}})
    stream = source.stream(0)
    prompt = next(stream)
    stream.observe(Group(prompt, [Rollout(score=Score(1.0))]))
    rates = stream.state_dict()["streams"]["x"]["streams"]["inner"]["rates"]
    assert rates[str(prompt.meta["level"])] == 1.0


def test_resume_with_a_curriculum_inside(build, resumes):
    curriculum = {"type": "curriculum", "source": "synthetic/arithmetic"}
    members = {"a": {"prompts": curriculum}, "b": {"prompts": SMALL, "weight": 0.5}}

    def observe(stream, prompt):
        score = Score(float(prompt.meta["level"] == 0))
        stream.observe(Group(prompt, [Rollout(score=score)]))

    for n in (0, 1, 17, 40):
        resumes(build({"type": "mixture", "members": members}), n, observe=observe)


@pytest.mark.parametrize("name", ["a/b", "", "heldout"])
def test_names_that_would_confuse_ids_are_refused(build, name):
    with pytest.raises(ValidationError, match="may not be called"):
        build({"type": "mixture", "members": {name: {"prompts": SMALL}}})


def test_no_members_is_refused(build):
    with pytest.raises(ValidationError, match="at least 1 item"):
        build({"type": "mixture", "members": {}})


def test_dump_and_load_are_equal(build):
    source = build(recipe(a=1, b=2))
    assert build(source.model_dump()) == source
