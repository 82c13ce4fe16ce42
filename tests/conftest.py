"""Fixtures every test may use: hand-made rollouts and groups."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: more threads only fight each other

import pytest
from hypothesis import settings

from trainer.types import Group, Prompt, Rollout, Score, Span

# The same examples on every machine, and no clock: a busy machine is no bug.
settings.register_profile("cohort", deadline=None, derandomize=True)
settings.load_profile("cohort")


def _span(parent: int | None, tokens: Sequence[int], sampled: bool, version: int = 0) -> Span:
    n = len(tokens)
    return Span(
        parent=parent,
        role="assistant" if sampled else "user",
        author="policy" if sampled else "data",
        message=" ".join(map(str, tokens)),
        tokens=list(tokens),
        sampled=[sampled] * n,
        logprobs=[-0.5 if sampled else 0.0] * n,
        version=[version if sampled else -1] * n,
    )


@pytest.fixture
def make_span() -> Callable[..., Span]:
    """`make_span(parent, tokens, sampled, version=0)`."""
    return _span


@pytest.fixture
def make_group() -> Callable[..., Group]:
    """`make_group(serial, values, prompt_tokens, replies)`: single-turn rollouts with scores."""

    def make(
        serial: int = 0,
        values: Sequence[float | None] = (1.0, 0.0),
        prompt_tokens: Sequence[int] = (1, 2),
        replies: Sequence[Sequence[int]] = ((3, 4), (5,)),
        version: int = 0,
    ) -> Group:
        rollouts = [
            Rollout(
                spans=[_span(None, prompt_tokens, False), _span(0, reply, True, version)],
                score=Score(value=value),
            )
            for value, reply in zip(values, replies, strict=True)
        ]
        prompt = Prompt(str(serial), ({"role": "user", "content": "q"},), serial=serial)
        return Group(prompt, rollouts)

    return make
