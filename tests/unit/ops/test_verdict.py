from __future__ import annotations

import numpy as np
import pytest
import torch

from trainer.ops.verdict import describe, judged, shorten
from trainer.types import Rollout, Score, ScoreStatus, Span


@pytest.mark.parametrize(
    ("returned", "values"),
    [
        ([1, True], [1.0, 1.0]),
        ((0.5, None), [0.5, None]),
        ([np.float32(0.5), np.int64(2)], [0.5, 2.0]),
        ([torch.tensor(0.25), torch.tensor([3])], [0.25, 3.0]),
        (np.array([1.0, 0.0]), [1.0, 0.0]),
        (torch.tensor([1, 0]), [1.0, 0.0]),
        ([Score(1.0), 0], [1.0, 0.0]),
    ],
)
def test_numbers_of_every_kind(returned, values):
    scores = judged(returned, [Rollout(), Rollout()])
    assert [s.value for s in scores] == values
    assert all(type(s.value) in (float, type(None)) for s in scores)
    assert not any(s.status.is_fault for s in scores)


@pytest.mark.parametrize(
    ("item", "status", "reason"),
    [
        (float("nan"), ScoreStatus.NOT_FINITE, "the score is nan"),
        (Score(1.0, parts={"a": float("-inf")}), ScoreStatus.NOT_FINITE, "parts['a'] is -inf"),
        ("1", ScoreStatus.RAISED, "TypeError: the score is str '1', expected a number or None"),
        (Score(1.0, parts={"a": "x"}), ScoreStatus.RAISED, "TypeError: parts['a'] is str 'x'"),
        (torch.ones(2), ScoreStatus.RAISED, "RuntimeError: "),
        (Score(1.0, status="odd"), ScoreStatus.RAISED, "ValueError: 'odd' is not a valid"),
        (10**400, ScoreStatus.RAISED, "OverflowError: "),
    ],
)
def test_what_is_no_score(item, status, reason):
    good, bad = judged([1.0, item], [Rollout(), Rollout()])
    assert (good.value, bad.value, bad.status) == (1.0, None, status)
    assert bad.reason.startswith(reason)


def test_artifacts_end_with_the_reward_that_made_them():
    drawn, odd = Score(1.0, artifacts={"png": b"x"}), Score(1.0, artifacts={"png": "x"})
    assert judged([drawn], [Rollout()])[0].artifacts == {}
    good, bad = judged([drawn, odd], [Rollout(), Rollout()], artifacts=True)
    assert good.artifacts == {"png": b"x"}
    assert (bad.value, bad.reason) == (None, "TypeError: artifacts['png'] is str, expected bytes")
    lost = Score(status=ScoreStatus.TIMEOUT, artifacts={"png": b"x"})
    assert judged([lost], [Rollout()], artifacts=True)[0].artifacts == {}


def test_a_generator_or_a_dict_is_no_list():
    for returned in ((x for x in [1.0]), {"a": 1.0}, 1.0, "1"):
        (score,) = judged(returned, [Rollout()])
        assert score.status is ScoreStatus.RAISED
        assert "expected a list with one item per rollout" in score.reason


def test_reasons_are_one_short_line():
    assert shorten("a\n b\t c") == "a b c"
    assert len(describe(ValueError("x" * 1000))) == 300
    assert describe(ValueError()) == "ValueError"


def _steps(ends: list[int]) -> Score:
    """Of a rollout with one span of two tokens."""
    span = Span(None, "assistant", "policy", "ab", [1, 2], [True] * 2, [0.0] * 2, [0] * 2)
    score = Score(1.0, tokens={0: [0.0, 0.5]}, steps={0: ends})
    return judged([score], [Rollout([span])])[0]


def test_step_ends_are_kept() -> None:
    assert _steps([0, 1]).steps == {0: [0, 1]}


@pytest.mark.parametrize("ends", [[2], [-1], [1, 0], [1, 1]])
def test_step_ends_must_rise_within_the_tokens(ends: list[int]) -> None:
    score = _steps(ends)
    assert (score.status, score.steps) == (ScoreStatus.WRONG_LENGTH, {})
    assert "must rise within its 2 token rewards" in score.reason


def test_the_return_counts_turns_and_tokens() -> None:
    assert Score(1.0, spans={0: 0.25}, tokens={0: [0.5, 0.0]}).total == 1.75
    assert Score(None).total is None
