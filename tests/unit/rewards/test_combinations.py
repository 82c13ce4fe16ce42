"""product, lexicographic, annealed, tightening, staged, trust, audited, of fixed scores."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from pydantic import ValidationError

from trainer.config import Scoring
from trainer.rewards.base import Reward
from trainer.scoring import Scorer
from trainer.types import Score, ScoreStatus

OK, NA = ScoreStatus.OK, ScoreStatus.NOT_APPLICABLE
ASKED: Counter[str] = Counter()


class Fixed(Reward):
    """Gives `values` in order; strings name a status. Counts how often `label` was asked."""

    values: tuple[float | str, ...]
    label: str = ""

    async def score(self, group, ctx):
        ASKED[self.label] += 1
        return [
            Score(status=ScoreStatus(v), reason="why") if isinstance(v, str) else Score(v)
            for v in self.values[: len(group.rollouts)]
        ]


def fixed(*values, label=""):
    return Fixed(values=values, label=label)


@pytest.fixture
def at(make_reward, make_replies):
    """`await at(spec, size, step, total)`: through the border at a step."""

    async def run(spec, size, step=0, total=100):
        group = make_replies(["x"] * size)
        config = Scoring(workers=1)
        reward = make_reward(spec)
        async with Scorer.open(reward, config, seed=0, total_steps=total) as scorer:
            return await scorer.score_group(group, step=step)

    return run


def values(scores):
    return [score.value for score in scores]


async def test_product(at):
    spec = {
        "type": "product",
        "factors": {
            "a": {"reward": fixed(0.5, 0.5, "not_applicable", "raised", "not_applicable")},
            "b": {"reward": fixed(0.25, -1.0, 0.25, 1.0, "not_applicable"), "power": 0.5},
        },
    }
    scores = await at(spec, 5)
    assert values(scores) == [0.25, 0.0, 0.5, None, None]
    assert [s.status for s in scores] == [OK, OK, OK, ScoreStatus.RAISED, NA]
    assert scores[0].parts == {"a": 0.5, "b": 0.25}
    floor = {"type": "product", "factors": {"a": {"reward": fixed(0.0), "floor": 0.1}}}
    assert values(await at(floor, 1)) == [0.1]


async def test_r1_reward_is_a_product(at):
    """R1-Reward (arXiv:2505.02835): 0.5 F + Acc (1 + 0.5 Con); the consistency counts only where
    the answer is right."""

    def spec(form, right, consistent):
        bonus = {"type": "shaped", "reward": fixed(consistent), "scale": 0.5, "shift": 1}
        both = {"accuracy": {"reward": fixed(right)}, "consistency": {"reward": bonus}}
        return {
            "type": "weighted",
            "terms": {
                "format": {"weight": 0.5, "reward": fixed(form)},
                "answer": {"reward": {"type": "product", "factors": both}},
            },
        }

    for row, value in [((1.0, 1.0, 1.0), 2), ((1.0, 1.0, -1.0), 1), ((1.0, 0.0, 1.0), 0.5),
                       ((0.0, 1.0, 0.0), 1)]:  # fmt: skip
        assert values(await at(spec(*row), 1)) == [value]


async def test_lexicographic(at):
    spec = {
        "type": "lexicographic",
        "levels": {
            "right": {"reward": fixed(1.0, 1.0, 0.0, 1.0, "timeout")},
            "short": {"reward": fixed(0.2, 0.9, 1.0, 0.21, 1.0), "grain": 0.1},
        },
    }
    scores = await at(spec, 5)
    assert values(scores) == pytest.approx([0.5, 1.0, 0.0, 0.5, None])
    assert scores[4].status is ScoreStatus.TIMEOUT
    assert values(await at(spec, 1)) == [0.5]


async def test_annealed(at):
    spec = {"type": "annealed", "reward": fixed(2.0, "raised"), "weight": {"first": 1, "last": 0}}
    for step, value in [(0, 2.0), (50, 1.0), (100, 0.0)]:
        first, second = await at(spec, 2, step=step)
        assert (first.value, first.parts["raw"]) == (pytest.approx(value), 2.0)
        assert (second.value, second.status) == (None, ScoreStatus.RAISED)


async def test_tightening(at):
    step = {"shape": "step", "until": 1500}
    spec = {
        "type": "tightening",
        "reward": fixed(0.95, 0.8, 0.538462, 0.4, "not_applicable"),
        "low": {"first": 0.5, "last": 0.75} | step,
        "high": {"first": 0.75, "last": 0.9} | step,
    }
    assert values(await at(spec, 5, step=1499)) == [1, 1, 0.538462, 0, None]
    late = await at(spec, 5, step=1500)
    assert values(late) == [1, 0.8, 0, 0, None]
    assert late[0].parts == {"raw": 0.95}
    (crossed,) = await at(spec | {"low": 0.95}, 1)
    assert crossed.status is ScoreStatus.RAISED
    assert "low 0.95 is above high 0.75" in crossed.reason


async def test_staged(at, make_reward):
    spec = {
        "type": "staged",
        "phases": {"easy": {"reward": fixed(1.0)}, "hard": {"start": 0.5, "reward": fixed(2.0)}},
    }
    for step, name, value in [(0, "easy", 1.0), (49, "easy", 1.0), (50, "hard", 2.0)]:
        (only,) = await at(spec, 1, step=step)
        assert (only.value, only.parts) == (value, {name: value})
    with pytest.raises(ValidationError, match="must start at 0"):
        make_reward({"type": "staged", "phases": {"a": {"start": 3, "reward": "none"}}})


def trust(outcomes, thinking, **fields):
    inner = {"outcome": fixed(*outcomes), "thinking": fixed(*thinking, label="thinking")}
    return {"type": "trust"} | inner | fields


RELEASED = {
    "decay_steps": 12000,
    "settled": (0.1, 0.9),
    "ignore_below": 0.2,
    "distrust_without_right": False,
}
SCORES = (0.4, 0.5, 0.9, 0.8)


async def test_trust_by_the_paper(at):
    scores = await at(trust((1.0, 1.0, 0.0, 0.0), SCORES), 4, step=600, total=1500)
    assert values(scores) == pytest.approx([1.053919, 1.067399, 0.121319, 0.107839], abs=1e-6)
    assert scores[0].parts["trust"] == pytest.approx(0.670320, abs=1e-6)
    assert scores[0].parts["thinking"] == 0.4


async def test_trust_by_the_code(at):
    spec = trust((1.0, 1.0, 0.0, 0.0), SCORES, **RELEASED)
    scores = await at(spec, 4, step=600)
    assert values(scores) == pytest.approx([1.114148, 1.142684, 0, 0], abs=1e-6)
    faded = 0.3 * math.exp(-600 / 12000)
    assert scores[0].parts["trust"] * faded == pytest.approx(0.285369, abs=1e-6)
    graded = trust((0.8, 0.6, 0.3, 0.25), SCORES, **RELEASED)
    scores = await at(graded, 4, step=600)
    assert values(scores) == pytest.approx([0.876515, 0.695644, 0.472160, 0.403031], abs=1e-6)
    assert scores[0].parts["trust"] * faded == pytest.approx(0.191288, abs=1e-6)


async def test_a_settled_group_asks_nobody(at):
    before = ASKED["thinking"]
    assert values(await at(trust((1.0,) * 4, SCORES, **RELEASED), 4)) == [1.0] * 4
    assert ASKED["thinking"] == before
    assert values(await at(trust((1.0,) * 4, SCORES), 4)) == pytest.approx(
        [1 + 0.3 * t for t in SCORES]
    )


async def test_trust_without_a_right_answer_and_with_faults(at):
    (only,) = await at(trust((0.0,), (0.5,)), 1)
    assert only.parts["trust"] == pytest.approx(math.exp(-0.5))
    (trusting,) = await at(trust((0.0,), (0.5,), distrust_without_right=False), 1)
    assert trusting.parts["trust"] == 1
    scores = await at(trust((1.0, 1.0, "raised"), ("timeout", "not_applicable", 1.0)), 3)
    assert values(scores) == [None, 1.0, None]
    assert [s.status for s in scores] == [ScoreStatus.TIMEOUT, OK, ScoreStatus.RAISED]


async def test_an_audit_says_where_the_reward_is_fooled(at):
    spec = {
        "type": "audited",
        "reward": fixed(1.0, 0.0, 1.0, 0.0, 0.75),
        "audit": fixed(1.0, 0.0, 0.0, 1.0, 1.0),
        "tolerance": 0.25,
    }
    scores = await at(spec, 5)
    assert values(scores) == [1.0, 0.0, 1.0, 0.0, 0.75]
    assert [s.parts["agrees"] for s in scores] == [1, 1, 0, 0, 1]
    assert [s.parts["fooled"] for s in scores] == [0, 0, 1, 0, 0]
    assert [s.parts["audit"] for s in scores] == [1.0, 0.0, 0.0, 1.0, 1.0]


async def test_an_audit_never_changes_the_value(at):
    spec = {
        "type": "audited",
        "reward": fixed(1.0, 0.5, "raised", "not_applicable"),
        "audit": fixed("raised", "not_applicable", 1.0, 1.0),
    }
    scores = await at(spec, 4)
    assert values(scores) == [1.0, 0.5, None, None]
    assert [s.status for s in scores] == [OK, OK, ScoreStatus.RAISED, NA]
    assert [s.parts["agrees"] for s in scores] == [s.parts["fooled"] for s in scores] == [None] * 4
