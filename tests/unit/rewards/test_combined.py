"""weighted, gated, route, shaped: their children here are rewards of fixed scores."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
from pydantic import Field, ValidationError

from trainer.rewards.base import Reward, flatten
from trainer.types import Score, ScoreStatus

OK, NA = ScoreStatus.OK, ScoreStatus.NOT_APPLICABLE


class Fixed(Reward):
    """Gives `values` in order; strings name a status."""

    values: tuple[float | str, ...]
    span: float | None = None

    async def score(self, group, ctx):
        assert len(group.rollouts) <= len(self.values)
        spans = {} if self.span is None else {1: self.span}
        tokens = {} if self.span is None else {1: [self.span] * len(group.rollouts[0].completion)}
        return [
            Score(status=ScoreStatus(v), reason="why")
            if isinstance(v, str)
            else Score(v, spans, tokens, {"half": v / 2})
            for v in self.values[: len(group.rollouts)]
        ]


class Live(Reward):
    """Has a life, state and lessons."""

    label: str
    state: list[str] = Field(default_factory=list)

    @contextlib.asynccontextmanager
    async def open(self, context):
        context.log.append(f"open {self.label}")
        yield
        context.log.append(f"close {self.label}")

    async def learn(self, groups, batch, step):
        return batch, {"loss": float(len(groups))}

    def state_dict(self):
        return {"label": self.label}

    def load_state_dict(self, state):
        self.state.append(state["label"])


def fixed(*values, **fields):
    return Fixed(values=values, **fields)


def weighted(**terms):
    return {
        "type": "weighted",
        "terms": {k: {"reward": r, "weight": w} for k, (r, w) in terms.items()},
    }


async def test_weighted_sums_and_names_parts(score, make_replies):
    spec = weighted(a=(fixed(1.0, 0.0), 1.0), b=(fixed(0.5, 1.0), 0.2))
    first, second = await score(spec, make_replies(["x", "y"]))
    assert first.value == pytest.approx(1.1)
    assert second.value == pytest.approx(0.2)
    assert first.parts == {"a": 1.0, "a/half": 0.5, "b": 0.5, "b/half": 0.25}


async def test_weighted_adds_turn_and_token_rewards(score, make_replies):
    spec = weighted(a=(fixed(1.0, span=2.0), 0.5), b=(fixed(1.0, span=1.0), 3.0))
    (only,) = await score(spec, make_replies(["xy"]))
    assert only.value == pytest.approx(3.5)
    assert only.spans == {1: pytest.approx(4.0)}
    assert only.tokens == {1: [pytest.approx(4.0)] * 2}


async def test_weighted_skips_what_does_not_apply_but_not_faults(score, make_replies):
    spec = weighted(
        a=(fixed(1.0, 1.0, "not_applicable", "raised"), 1.0),
        b=(fixed("not_applicable", "timeout", "not_applicable", 1.0), 1.0),
    )
    scores = await score(spec, make_replies(["x"] * 4))
    assert [s.value for s in scores] == [1.0, None, None, None]
    assert [s.status for s in scores] == [OK, ScoreStatus.TIMEOUT, NA, ScoreStatus.RAISED]
    assert scores[1].reason == "b: why"
    assert scores[1].parts == {"a": 1.0, "a/half": 0.5, "b": None}
    (dropped,) = await score({**spec, "missing": "drop"}, make_replies(["x"]))
    assert (dropped.value, dropped.status) == (None, NA)


async def test_weight_zero_only_logs(score, make_replies):
    spec = weighted(a=(fixed(1.0), 1.0), b=(fixed("raised"), 0.0))
    (only,) = await score(spec, make_replies(["x"]))
    assert (only.value, only.status) == (1.0, OK)
    assert only.parts["b"] is None


async def test_weighted_passes_unparsable_on(score, make_replies):
    spec = weighted(a=("vision/iou", 1.0), b=(fixed(1.0), 1.0))
    (only,) = await score(spec, make_replies(["no box"], answer=[0, 0, 1, 1]))
    assert (only.value, only.status) == (1.0, ScoreStatus.UNPARSABLE)
    assert only.reason.startswith("a: no box")


async def test_gated(score, make_replies):
    gate = fixed(1.0, 0.5, "raised", "not_applicable", 1.0)
    spec = {"type": "gated", "gate": gate, "reward": fixed(0.25, 0.75), "otherwise": -1}
    scores = await score(spec, make_replies(["x"] * 5))
    assert [s.value for s in scores] == [0.25, -1.0, None, None, 0.75]
    assert [s.status for s in scores] == [OK, OK, ScoreStatus.RAISED, NA, OK]
    assert scores[1].parts == {"gate": 0.5, "gate/half": 0.25, "reward": None}
    assert scores[4].parts["reward"] == 0.75
    (lower,) = await score({**spec, "threshold": 0.5, "gate": fixed(0.5)}, make_replies(["x"]))
    assert lower.value == 0.25


@pytest.mark.parametrize(("task", "value"), [("a", 1.0), ("b", 2.0), ("c", 3.0), (None, 3.0)])
async def test_route_by_task(score, make_replies, task, value):
    tasks = {"a": fixed(1.0), "b": fixed(2.0)}
    spec = {"type": "route", "tasks": tasks, "default": fixed(3.0)}
    (only,) = await score(spec, make_replies(["x"], task=task))
    name = task if task in tasks else "default"
    assert only.value == value
    assert only.parts == {name: value, f"{name}/half": value / 2}


async def test_route_without_a_reward_does_not_apply(score, make_replies, make_reward):
    spec = {"type": "route", "tasks": {"a": "text/exact"}}
    (only,) = await score(spec, make_replies(["x"], task="z"))
    assert (only.value, only.status) == (None, NA)
    assert only.reason == "no reward for task 'z'; route has a"
    assert make_reward(spec).needs == {"answer", "task"}


@pytest.mark.parametrize(
    ("fields", "x", "y"),
    [
        ({"scale": 2, "shift": -1}, 1.0, 1.0),
        ({"scale": 2, "shift": -1}, 0.0, -1.0),
        ({"power": 2}, 0.5, 0.25),
        ({"power": 2}, -0.5, -0.25),
        ({"clip": (0, 1)}, 3.0, 1.0),
        ({"clip": (0, 1), "shift": -5}, 3.0, 0.0),
        ({"steps": [(0.5, 0.5), (0.75, 1.0)]}, 0.75, 1.0),
        ({"steps": [(0.5, 0.5), (0.75, 1.0)]}, 0.6, 0.5),
        ({"steps": [(0.5, 0.5)], "below": -1}, 0.4, -1.0),
        ({"steps": [(0.5, 0.5)], "power": 2, "scale": 4, "shift": 1, "clip": (0, 1.5)}, 0.9, 1.5),
    ],
)
async def test_shaped(score, make_replies, fields, x, y):
    spec = {"type": "shaped", "reward": fixed(x, "raised")} | fields
    first, second = await score(spec, make_replies(["x", "y"]))
    assert first.value == pytest.approx(y)
    assert first.parts["raw"] == x
    assert (second.value, second.status) == (None, ScoreStatus.RAISED)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": [(0.5, 1), (0.5, 2)]}, "thresholds must rise"),
        ({"steps": [(float("nan"), 1)]}, "must be finite"),
        ({"clip": (1, 0)}, "lowest 1.0 is above highest 0.0"),
    ],
)
def test_shaped_refuses(make_reward, fields, message):
    with pytest.raises(ValidationError, match=message):
        make_reward({"type": "shaped", "reward": "none"} | fields)


async def test_combined_rewards_open_learn_and_save_their_children(make_reward):
    inner = Live(label="inner")
    outer = {"type": "gated", "gate": Live(label="gate"), "reward": weighted(a=(inner, 1.0))}
    reward = make_reward(outer)
    context = SimpleNamespace(log=[])
    async with reward.open(context):
        assert context.log == ["open gate", "open inner"]
        batch, learned = await reward.learn([None, None], "batch", 1)
    assert batch == "batch"
    assert context.log[2:] == ["close inner", "close gate"]
    assert learned == {"gate/loss": 2.0, "reward/a/loss": 2.0}
    state = reward.state_dict()
    assert state == {"gate": {"label": "gate"}, "reward": {"a": {"label": "inner"}}}
    reward.load_state_dict(state)
    assert inner.state == ["inner"]
    assert [type(r).__name__ for r in flatten(reward)] == ["Gated", "Live", "Weighted", "Live"]


def test_needs_are_those_of_the_children(make_reward):
    inner = weighted(a=("math/boxed", 1.0), b=("none", 1.0))
    assert make_reward({"type": "shaped", "reward": inner}).needs == {"answer"}


@pytest.mark.parametrize(
    "spec",
    [
        weighted(
            a=("math/boxed", 1.0),
            b=({"type": "length/overlong", "max_tokens": 9, "buffer": 3}, 0.5),
        ),
        {"type": "route", "tasks": {"a": "text/choice"}, "default": "none"},
        {"type": "shaped", "reward": "vision/iou", "steps": [(0.5, 1.0)]},
        {"function": "trl.rewards:think_format_reward"},
    ],
)
def test_dump_and_load_are_inverse(make_reward, spec):
    reward = make_reward(spec)
    assert make_reward(reward.model_dump(mode="json")) == reward


async def test_none(score, make_replies):
    assert [s.value for s in await score("none", make_replies(["x", "y"]))] == [0.0, 0.0]
