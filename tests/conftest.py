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

VLLM = "tests/integration/vllm/"
ORDER = (VLLM, "tests/integration/", "test_recipes.py", "")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests share its fixtures, and those of vLLM one server: each go to one process. A
    recipe's test shares nothing. (`--dist loadgroup` of pytest-xdist 3.8 does nothing under pytest
    9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            if path.startswith(VLLM):
                return VLLM
            return nodeid if path.endswith("test_recipes.py") else path

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that no process is left with it at the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: next(i for i, k in enumerate(ORDER) if k in item.nodeid))


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
