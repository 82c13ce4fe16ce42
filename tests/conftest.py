"""Fixtures every test may use: hand-made rollouts and groups, the context of one process; and which
tests stay together when several processes share them (`make test`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: more threads only fight each other

import pytest
from hypothesis import settings

from trainer.context import Context
from trainer.types import Group, Prompt, Rollout, Score, Span

# The same examples on every machine, and no clock: a busy machine is no bug.
settings.register_profile("cohort", deadline=None, derandomize=True)
settings.load_profile("cohort")

ROOT = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A file's tests share its fixtures, and those of vLLM one server: each go to one process. A
    recipe's test shares nothing. What takes longest begins first, so that no process is left with
    it at the end."""
    for item in items:
        if group := _group_of(item.path.relative_to(ROOT)):
            item.add_marker(pytest.mark.xdist_group(group))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _order_of(item.path.relative_to(ROOT)))


def _group_of(path: Path) -> str | None:
    if path.is_relative_to("integration/vllm"):
        return "vllm"
    return None if path.name == "test_recipes.py" else str(path)


def _order_of(path: Path) -> int:
    if path.is_relative_to("integration"):
        return 1 - path.is_relative_to("integration/vllm")
    return 3 if path.is_relative_to("unit") else 2


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


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[..., Context]:
    """`make_context(model, renderer=None, **facts)`: of a run's only process, on a CPU. The
    renderer is the model's own unless another is given."""

    def make(model: Any = None, renderer: Any = None, **facts: Any) -> Context:
        if renderer is None and model is not None:
            renderer = model.renderer()
        known = {"folder": tmp_path, "seed": 0, "total_steps": 1, "device": "cpu"}
        alone = {"rank": 0, "world": 1}
        return Context(**{**known, **alone, "model": model, "renderer": renderer, **facts})

    return make
