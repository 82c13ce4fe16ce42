"""Numbers worked out by hand; the log-ratios of the card: [.2, -.1 | .3, 0 | .5, -.4]."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from trainer.advantages.base import Advantage
from trainer.advantages.prl import Prl

RATIO = torch.tensor([[0.0, 0.2, -0.1, 0.3, 0.0, 0.5, -0.4]])
ONE = [[0, 1, 1, 1, 1, 1, 1]]


def test_by_hand(make_batch) -> None:
    batch = make_batch(ONE, [1.0], sampled_logprobs=RATIO, ref_logprobs=torch.zeros(1, 7))
    found = Prl(coef=0.1, step_length=2, baseline="none")(batch)
    assert found[0].tolist() == pytest.approx([0, 0.95, 0.95, 0.96, 0.96, 0.99, 0.99])


def test_old_logprobs_come_first_and_the_prompt_does_not_count(make_batch) -> None:
    other = {"sampled_logprobs": RATIO * 9, "old_logprobs": RATIO + torch.eye(1, 7)}
    batch = make_batch(ONE, [1.0], ref_logprobs=torch.zeros(1, 7), **other)
    found = Prl(coef=0.1, step_length=2, baseline="none")(batch)
    assert found[0, 1].item() == pytest.approx(0.95)


def test_the_reference_itself_gives_the_outcome(make_batch) -> None:
    batch = make_batch(ONE * 2, [1.0, 0.0], ref_logprobs=torch.zeros(2, 7))
    assert Prl(baseline="none")(batch)[0].tolist() == [0] + [1] * 6
    assert Prl()(batch)[:, 1].tolist() == [0.5, -0.5]
    assert not Prl()(batch.with_(rewards=batch.mask * 0.1)).any()


def test_a_short_answer_is_one_step(make_batch) -> None:
    batch = make_batch(ONE, [1.0], sampled_logprobs=RATIO, ref_logprobs=torch.zeros(1, 7))
    found = Prl(coef=0.1, baseline="none")(batch)
    assert found[0].tolist() == pytest.approx([0] + [0.95] * 6)


def test_the_baseline_of_a_step_is_over_the_rows_that_have_it(make_batch) -> None:
    mask = [[1, 1, 1, 1], [1, 1, 0, 0]]
    ratio = torch.tensor([[1.0, 1, 1, 1], [1, 0, 5, 5]])
    zeros = torch.zeros(2, 4)
    batch = make_batch(mask, [1.0, 0.0], sampled_logprobs=ratio, ref_logprobs=zeros)
    found = Prl(coef=0.1, step_length=2, baseline="step")(batch)
    # q = [[0.6, 0.8], [-0.1]]
    assert_close(found, torch.tensor([[0.35, 0.35, 0, 0], [-0.35, -0.35, 0, 0]]))
    outcome = Prl(coef=0.1, step_length=2)(batch)
    assert_close(outcome, torch.tensor([[0.1, 0.1, 0.3, 0.3], [-0.6, -0.6, 0, 0]]))


def test_steps_that_the_reward_marked(make_batch) -> None:
    ends = torch.tensor([[False, False, True, False, False, False, True]])
    batch = make_batch(
        ONE,
        [1.0],
        sampled_logprobs=RATIO,
        ref_logprobs=torch.zeros(1, 7),
        extra={"step_end": ends},
    )
    found = Prl(coef=0.1, step_length=None, baseline="none")(batch)
    assert found[0].tolist() == pytest.approx([0, 0.95, 0.95] + [0.96] * 4)


def test_a_batch_without_actions(make_batch) -> None:
    batch = make_batch([[0, 0]], ref_logprobs=torch.zeros(1, 2))
    assert not Prl()(batch).any()
    assert not Prl(baseline="step")(batch).any()


def test_it_is_found_by_name() -> None:
    made = Advantage.model_validate({"type": "prl", "coef": 0.001})
    assert made == Prl(coef=0.001)
    assert made.needs == {"ref_logprobs"}
