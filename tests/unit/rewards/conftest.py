"""A reward called directly, or through the border as in a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic import TypeAdapter

from trainer.config import Scoring
from trainer.ops.verdict import judged
from trainer.rewards.base import Call, IsolatedReward, Reward
from trainer.scoring import Scorer
from trainer.types import Group, Prompt, Rollout, Score, Span


def _group(replies: Sequence[str], **prompt: Any) -> Group:
    """Single-turn rollouts, one token per character."""
    rollouts = []
    for reply in replies:
        n = len(reply)
        question = Span(None, "user", "data", "q", [1], [False], [0.0], [-1])
        answer = Span(0, "assistant", "policy", reply, [7] * n, [True] * n, [0.0] * n, [0] * n)
        rollouts.append(Rollout(spans=[question, answer]))
    messages = prompt.pop("messages", ({"role": "user", "content": "q"},))
    return Group(Prompt("p0", messages, **prompt), rollouts)


@pytest.fixture
def make_replies() -> Callable[..., Group]:
    """`make_replies(["4", "5"], answer="4", meta={...})`."""
    return _group


@pytest.fixture
def make_reward() -> Callable[[Any], Reward]:
    """As a recipe makes it: `make_reward("math/boxed")`, `make_reward({"type": ..., ...})`."""
    return TypeAdapter(Reward).validate_python


@pytest.fixture
def grade(make_reward: Callable[[Any], Reward]) -> Callable[..., list[Score]]:
    """`grade(spec, replies, **prompt)`: scores of a rule, in this process."""

    def run(spec: Any, replies: Sequence[str], **prompt: Any) -> list[Score]:
        reward = make_reward(spec)
        assert isinstance(reward, IsolatedReward)
        reward.warm()
        group = _group(replies, **prompt)
        return judged(reward.grade_group(group, Call(step=3, total_steps=9)), group.rollouts)

    return run


@pytest.fixture
def values(grade: Callable[..., list[Score]]) -> Callable[..., list[float | None]]:
    """As `grade`, the values only."""

    def run(spec: Any, replies: Sequence[str], **prompt: Any) -> list[float | None]:
        return [score.value for score in grade(spec, replies, **prompt)]

    return run


@pytest.fixture
def score(make_reward: Callable[[Any], Reward]) -> Callable[..., Any]:
    """`await score(spec, group)`: through the border. For rewards that combine other rewards."""

    async def run(spec: Any, group: Group) -> list[Score]:
        config = Scoring(workers=1)
        async with Scorer.open(make_reward(spec), config, seed=0, total_steps=9) as scorer:
            return await scorer.score_group(group, step=3)

    return run
