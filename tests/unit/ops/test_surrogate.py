from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from trainer.ops.filled import filled
from trainer.ops.surrogate import clipped_surrogate, log_ratio, row_mean
from trainer.types import Evaluation

NOW = torch.tensor([[-1.0, -2.0], [-3.0, 0.0]])
MASK = [[1, 1], [1, 0]]


def test_the_log_ratio_is_0_outside_the_mask(make_batch) -> None:
    old = torch.tensor([[-1.5, -2.0], [-2.0, float("nan")]])
    found = log_ratio(Evaluation(NOW), make_batch(MASK, old_logprobs=old))
    assert found.tolist() == [[0.5, 0.0], [-1.0, 0.0]]


def test_without_old_logprobs_it_is_0_with_a_gradient(make_batch) -> None:
    now = NOW.clone().requires_grad_()
    found = log_ratio(Evaluation(now), make_batch(MASK))
    assert not found.any()
    (gradient,) = torch.autograd.grad(found.sum(), now)
    assert gradient.tolist() == [[1, 1], [1, 0]]


def test_means_of_rows() -> None:
    values = torch.tensor([[1.0, 3.0], [5.0, float("inf")], [7.0, 7.0]])
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    assert row_mean(values, mask).tolist() == [[2.0], [5.0], [0.0]]


def test_what_is_clipped() -> None:
    """Ratios 1.5 and 0.5 with either sign of the advantage."""
    ratio = torch.tensor([[1.5, 1.5, 0.5, 0.5]])
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    per_action, metrics = clipped_surrogate(ratio.log(), advantages, clip_low=0.2, clip_high=0.3)
    assert_close(per_action, torch.tensor([[-1.3, 1.5, -0.5, 0.8]]))
    assert metrics["clip_high"].tolist() == [[1, 0, 0, 0]]
    assert metrics["clip_low"].tolist() == [[0, 0, 0, 1]]
    assert_close(metrics["ratio"], ratio)
    assert_close(metrics["approx_kl"], ratio - 1 - ratio.log())


def test_a_missing_field_is_named() -> None:
    assert filled(NOW, "advantages") is NOW
    with pytest.raises(ValueError, match="advantages: this batch has none"):
        filled(None, "advantages")
