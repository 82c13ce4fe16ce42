"""Numbers of the card base-gmpo."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from trainer.losses.base import Loss
from trainer.losses.gmpo import Gmpo
from trainer.ops.aggregation import coefficients
from trainer.types import Evaluation

LOG_RATIO = torch.tensor([[0.6, -0.7, 0.1], [-0.9, 0.5, 9.0]])
MASK = [[1, 1, 1], [1, 1, 0]]
ADVANTAGES = torch.tensor([[1.0, 1, 1], [-1, -1, 0]])


def run(batch, log_ratio=LOG_RATIO):
    loss = Gmpo()
    logprobs = (log_ratio - 3).requires_grad_()
    per_action, metrics = loss(Evaluation(logprobs), batch)
    scale = coefficients(
        batch.mask,
        batch.weight,
        loss.aggregation,
        length_norm=3,
        count_empty_rows=loss.count_empty_rows,
    )
    total = (per_action * scale).sum()
    (gradient,) = torch.autograd.grad(total, logprobs)
    return per_action.detach(), total.item(), gradient, metrics


def test_card(make_batch) -> None:
    batch = make_batch(MASK, old_logprobs=torch.full((2, 3), -3.0), advantages=ADVANTAGES)
    per_action, total, gradient, metrics = run(batch)
    assert_close(metrics["ratio"][:, 0], torch.tensor([0.935507, 1.051271]), atol=1e-6, rtol=0)
    assert_close(per_action[:, 0], torch.tensor([-0.935507, 1.051271]), atol=1e-6, rtol=0)
    assert total == pytest.approx(0.057882, abs=1e-6)
    row_1, row_2 = -0.935507 / 3 / 2, 1.051271 / 2 / 2
    expected = torch.tensor([[0.0, row_1, row_1], [0.0, row_2, 0.0]])
    assert_close(gradient, expected, atol=1e-6, rtol=0)
    assert metrics["clip_high"].tolist() == [[1, 0, 0], [0, 0, 0]]
    assert metrics["clip_low"].tolist() == [[0, 0, 0], [1, 0, 0]]


def test_no_advantage_and_no_action(make_batch) -> None:
    """The row without actions counts in the mean, as in the official code."""
    batch = make_batch(
        [*MASK, [0, 0, 0], [1, 1, 1]],
        old_logprobs=torch.full((4, 3), -3.0),
        advantages=torch.cat([ADVANTAGES, torch.zeros(2, 3)]),
    )
    per_action, total, gradient, metrics = run(batch, LOG_RATIO.repeat(2, 1))
    assert not per_action[2:].any()
    assert not gradient[2:].any()
    assert (metrics["ratio"][2:] == 1).all()
    assert total == pytest.approx(0.057882 / 2, abs=1e-6)


def test_outliers_stay_finite(make_batch) -> None:
    batch = make_batch(
        [[1, 1], [1, 1]],
        old_logprobs=torch.tensor([[-900.0, 0.0], [0.0, -900.0]]),
        advantages=torch.tensor([[-1.0, -1.0], [1.0, 1.0]]),
    )
    per_action, _ = Gmpo()(Evaluation(torch.tensor([[0.0, -900.0], [-900.0, 0.0]])), batch)
    assert per_action.isfinite().all()


def test_whole_rows_only() -> None:
    with pytest.raises(ValidationError, match="seq_mean_token_mean"):
        Loss.model_validate({"type": "gmpo", "aggregation": "token_mean"})
    assert Loss.model_validate("gmpo") == Gmpo()
