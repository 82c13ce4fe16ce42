"""Questions made of the policy's own answers: which, how often, and to the same state."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from trainer.prompts.self_judging import SelfJudging
from trainer.types import Group, Prompt, Rollout, Score, Span

SOURCE = {"type": "synthetic/arithmetic", "holdout": 20}
REWARDS = [1, 0, 0, 1, 0, 0, 0, 0]


def group(values, replies=None, serial=0, **fields) -> Group:
    replies = replies or [rf"so \boxed{{{'3' if v == 1 else 4 + i}}}" for i, v in enumerate(values)]
    rollouts = [
        Rollout([Span(None, "assistant", "policy", r, [], [], [], [])], score=Score(v))
        for v, r in zip(values, replies, strict=True)
    ]
    messages = ({"role": "user", "content": "1+2="},)
    return Group(Prompt("p", messages, **({"answer": "3", "serial": serial} | fields)), rollouts)


def made(values, replies=None, serial=0, **settings):
    stream = SelfJudging(source=SOURCE, **settings).stream(0)
    stream.observe(group(values, replies, serial))
    return stream._made


def test_shares_of_a_mixed_group_are_the_cards():
    """P(pointwise) = .3, P(pointwise with a right answer) = .15, P(pairwise) = .7."""
    stream = SelfJudging(source=SOURCE, reflect=0.0).stream(0)
    found = Counter()
    for serial in range(4000):
        (one,) = stream._questions(group(REWARDS, serial=serial), random.Random(serial))
        found[one.task, one.answer] += 1
    shares = {key: count / 4000 for key, count in found.items()}
    assert shares["pointwise", "Yes"] == pytest.approx(0.15, abs=0.02)
    assert shares["pointwise", "No"] == pytest.approx(0.15, abs=0.02)
    assert shares["pairwise", "A"] == pytest.approx(0.35, abs=0.03)
    assert shares["pairwise", "B"] == pytest.approx(0.35, abs=0.03)


def test_a_pair_shows_final_answers_and_its_label_is_true():
    for serial in range(20):
        (one,) = made(REWARDS, serial=serial, pointwise=0.0, reflect=0.0)
        text = one.messages[-1]["content"]
        shown = {"A": text.split("Answer A: ")[1][0], "B": text.split("Answer B: ")[1][0]}
        assert shown[one.answer] == "3"
        assert "so" not in text
        assert text.startswith("1+2=\n")


def test_groups_of_one_kind_ask_about_their_first_answer():
    (one,) = made([1, 1])
    assert (one.task, one.answer) == ("pointwise", "Yes")
    point, again = made([0, 0], reflect=1.0)
    assert (point.task, point.answer) == ("pointwise", "No")
    assert "Proposed answer: 4" in point.messages[-1]["content"]
    assert (again.task, again.answer) == ("reflection", "3")


def test_answers_without_a_final_answer_are_replaced_or_dropped():
    (one,) = made([0, 0], ["no idea", r"\boxed{7}"], reflect=0.0)
    assert "Proposed answer: 7" in one.messages[-1]["content"]
    assert made([0, 0], ["no idea", "none"]) == []
    assert made([None, None]) == []


def test_images_and_its_own_questions_give_nothing():
    stream = SelfJudging(source=SOURCE).stream(0)
    parts = ({"role": "user", "content": [{"type": "text", "text": "?"}]},)
    stream.observe(_with(parts))
    stream.observe(group(REWARDS, task="pairwise", meta={"made": "pairwise"}))
    assert stream._made == []


def _with(messages) -> Group:
    one = group(REWARDS)
    return Group(Prompt("p", messages, answer="3"), one.rollouts)


def test_they_are_drawn_among_the_source_and_state_resumes():
    settings = SelfJudging(source=SOURCE, share=0.5)
    stream, twin = settings.stream(3), settings.stream(3)
    first = [next(stream) for _ in range(4)]
    assert [p.serial for p in first] == [0, 1, 2, 3]
    assert all(p.task is None for p in first), "nothing is made yet"
    for serial in range(40):
        stream.observe(group(REWARDS, serial=serial))
    twin.load_state_dict(stream.state_dict())
    left, right = ([next(s) for _ in range(40)] for s in (stream, twin))
    assert left == right
    asked = [p for p in left if p.task]
    assert 10 <= len(asked) <= 30
    assert {p.task for p in asked} == {"pointwise", "pairwise", "reflection"}
    assert [p.serial for p in left] == list(range(4, 44))


def test_the_oldest_go_first():
    stream = SelfJudging(source=SOURCE, waiting=3, reflect=0.0).stream(0)
    for serial in range(5):
        stream.observe(group([1], serial=serial))
    assert [p.id for p in stream._made] == [f"p/pointwise/{serial}" for serial in (2, 3, 4)]


def test_held_out_prompts_are_the_sources():
    settings = SelfJudging(source=SOURCE)
    assert len(settings.heldout(5)) == 5
    assert {"task", "answer"} <= settings.columns()
