"""A context in a temporary folder, evaluation tables, and a group as scoring leaves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trainer.types import Group, Prompt, Rollout, Score, ScoreStatus, Span, Status


@pytest.fixture
def make_table() -> Callable[..., dict[str, Any]]:
    def make(step: int, mean: float, greedy: bool = True) -> dict[str, Any]:
        figures = {"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "n": 40}
        return {
            "step": step,
            "name": "accuracy",
            "sampled": figures,
            "greedy": figures if greedy else None,
            "pass@k": {1: figures, 4: figures},
            "maj@k": {4: figures},
            "examples": [
                {
                    "id": "heldout/0",
                    "prompt": "[image] where ?",
                    "answer": [1, 2],
                    "sampled": f"<answer>[{step},2]</answer>",
                    "greedy": "[1,2]" if greedy else None,
                    "reward": mean,
                }
            ],
        }

    return make


@pytest.fixture
def group() -> Group:
    content = [{"type": "image", "image": object()}, {"type": "text", "text": "where ?"}]
    prompt = Prompt("p7", ({"role": "user", "content": content},), answer=[1, 2], serial=7)

    def span(parent: int | None, author: str, text: str, sampled: bool) -> Span:
        return Span(parent, "r", author, text, [1, 2], [sampled] * 2, [-0.5] * 2, [0] * 2)

    root = span(None, "data", "where ?", False)
    short = Rollout([root, span(0, "policy", "[1,2]", True)], score=Score(0.5, parts={"iou": 0.5}))
    failed = Rollout(
        [
            root,
            span(0, "policy", "a", True),
            span(1, "tool", "t", False),
            span(2, "policy", "b", True),
        ],
        status=Status.TRUNCATED,
        score=Score.fault(ScoreStatus.RAISED, "ValueError: no box"),
    )
    return Group(prompt, [short, failed])
