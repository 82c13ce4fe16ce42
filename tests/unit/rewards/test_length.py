from __future__ import annotations

import pytest
from pydantic import ValidationError

from trainer.types import Prompt, Rollout, ScoreStatus, Span


def test_overlong(values):
    """L_max 20, buffer 5: free up to 15, then -1/5 per token, -1 from 20 on."""
    spec = {"type": "length/overlong", "max_tokens": 20, "buffer": 5}
    replies = ["x" * n for n in (0, 15, 16, 18, 20, 30)]
    assert values(spec, replies) == pytest.approx([0, 0, -0.2, -0.6, -1, -1])
    assert values(spec | {"penalty": 0.5}, ["x" * 18]) == pytest.approx([-0.3])


def test_overlong_by_the_numbers_of_dapo(values):
    spec = {"type": "length/overlong", "max_tokens": 20, "buffer": 4}
    assert values(spec, ["x" * n for n in (15, 16, 17, 20)]) == pytest.approx([0, 0, -0.25, -1])


def test_overlong_without_tokens_does_not_apply(make_reward):
    reward = make_reward({"type": "length/overlong", "max_tokens": 20, "buffer": 5})
    text = Span(None, "assistant", "policy", "words", [], [], [], [])
    score = reward.grade(Rollout(spans=[text]), Prompt("p", ()))
    assert (score.value, score.status) == (None, ScoreStatus.NOT_APPLICABLE)


def test_overlong_refuses_a_buffer_above_the_limit(make_reward):
    with pytest.raises(ValidationError, match="buffer 30 is longer than max_tokens 20"):
        make_reward({"type": "length/overlong", "max_tokens": 20, "buffer": 30})
