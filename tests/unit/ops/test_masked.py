from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from trainer.ops.masked import (
    group_centred,
    group_count,
    group_mean,
    group_std,
    masked_mean,
    masked_std,
    masked_sum,
)

VALUES = torch.tensor([[1.0, 2.0, float("nan")], [3.0, float("inf"), 0.0]])
MASK = torch.tensor([[True, True, False], [True, False, False]])


def test_what_lies_outside_the_mask_does_not_matter() -> None:
    assert masked_sum(VALUES, MASK).item() == 6.0
    assert masked_mean(VALUES, MASK).item() == 2.0
    assert_close(masked_sum(VALUES, MASK, -1), torch.tensor([3.0, 3.0]))
    assert_close(masked_mean(VALUES, MASK, -1), torch.tensor([1.5, 3.0]))
    assert masked_std(VALUES, MASK).item() == 1.0
    assert masked_std(VALUES, MASK, unbiased=False).item() == pytest.approx((2 / 3) ** 0.5)


def test_an_empty_mask_gives_zero() -> None:
    nothing = torch.zeros_like(MASK)
    assert masked_mean(VALUES, nothing).item() == 0.0
    assert masked_std(VALUES, nothing).item() == 0.0


def test_weights_may_be_fractions() -> None:
    weight = torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert masked_mean(VALUES, weight).item() == pytest.approx(2.5 / 1.5)


def test_statistics_by_group_follow_the_rows() -> None:
    group = torch.tensor([7, -2, 7, 7, 5])
    values = torch.tensor([1.0, 4.0, 2.0, 6.0, 9.0])
    assert group_count(group).tolist() == [3, 1, 3, 3, 1]
    assert group_mean(values, group).tolist() == [3.0, 4.0, 3.0, 3.0, 9.0]
    assert_close(group_std(values, group), torch.tensor([7.0**0.5, 0, 7.0**0.5, 7.0**0.5, 0]))


def test_equal_values_are_centred_to_exactly_zero() -> None:
    values = torch.tensor([0.1, 0.1, 0.1, 0.7, 0.8])
    group = torch.tensor([0, 0, 0, 1, 1])
    assert group_centred(values, group)[:3].tolist() == [0.0, 0.0, 0.0]
    assert group_std(values, group)[:3].tolist() == [0.0, 0.0, 0.0]
    assert_close(group_centred(values, group)[3:], torch.tensor([-0.05, 0.05]))
