"""Each mode against losses added up by hand."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from trainer.ops.aggregation import coefficients

LOSSES = torch.tensor([[1.0, 1, 1, 1], [3, 3, 9, 9], [9, 9, 9, 9], [2, 9, 9, 9]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]).bool()
ALL = [
    "token_mean",
    "token_mean_local",
    "seq_mean_token_mean",
    "seq_mean_token_sum",
    "seq_mean_token_sum_norm",
    "token_sum_norm",
    "seq_length_weighted",
]


def loss(aggregation: str, losses=LOSSES, mask=MASK, weight=None, **options) -> float:
    options = {"length_norm": 8, **options}
    weight = torch.ones_like(losses) if weight is None else weight
    scale = coefficients(mask, weight, aggregation, **options)
    assert scale.shape == losses.shape
    assert not scale[~mask].any()
    return (scale * losses).sum().item()


@pytest.mark.parametrize(
    ("aggregation", "options", "expected"),
    [
        ("token_mean", {}, 12 / 7),
        ("seq_mean_token_mean", {}, 2.0),
        ("seq_mean_token_mean", {"count_empty_rows": True}, 1.5),
        ("seq_mean_token_sum", {}, 4.0),
        ("seq_mean_token_sum", {"count_empty_rows": True}, 3.0),
        ("seq_mean_token_sum_norm", {}, 0.375),
        ("token_sum_norm", {}, 1.5),
        ("token_mean_local", {"local_rows": 2}, 1.833333),
        ("token_mean_local", {"local_rows": 4}, 12 / 7),
        ("token_mean_local", {"local_rows": 1}, 1.5),
        ("seq_length_weighted", {}, 3.0),
    ],
)
def test_every_mode(aggregation: str, options: dict, expected: float) -> None:
    assert loss(aggregation, **options) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("aggregation", "norm", "expected"),
    [
        ("seq_mean_token_sum_norm", 10, -0.075),
        ("token_mean", 10, -0.214286),
        ("seq_mean_token_mean", 10, 0.0),
        ("token_sum_norm", 5, -0.3),
    ],
)
def test_dr_grpo(aggregation: str, norm: int, expected: float) -> None:
    losses = torch.tensor([[-0.5] * 5, [0.5] * 5])
    mask = torch.tensor([[1] * 5, [1, 1, 0, 0, 0]]).bool()
    assert loss(aggregation, losses, mask, length_norm=norm) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("aggregation", ALL)
def test_processes_together_equal_one_process(aggregation: str) -> None:
    """Rows cut over two processes, whose totals are added up, give the loss of one."""
    totals: list[torch.Tensor] = []

    def count(total: torch.Tensor) -> torch.Tensor:
        totals.append(total)
        return total

    cuts = [slice(0, 2), slice(2, 4)]
    for cut in cuts:
        loss(aggregation, LOSSES[cut], MASK[cut], local_rows=2, all_reduce=count)
    assert totals[0].dtype == torch.float64
    whole = sum(totals)
    parts = [
        loss(aggregation, LOSSES[cut], MASK[cut], local_rows=2, all_reduce=lambda _: whole)
        for cut in cuts
    ]
    assert sum(parts) == pytest.approx(loss(aggregation, local_rows=2), abs=1e-6)


@pytest.mark.parametrize("aggregation", ALL)
def test_nothing_to_train_on_gives_zero(aggregation: str) -> None:
    assert loss(aggregation, mask=torch.zeros_like(MASK)) == 0.0
    assert loss(aggregation, LOSSES[:0], MASK[:0]) == 0.0


def test_a_shared_token_counts_once() -> None:
    """Two leaves that share their first action weigh it by a half each."""
    losses = torch.tensor([[4.0, 1.0], [4.0, 3.0]])
    weight = torch.tensor([[0.5, 1.0], [0.5, 1.0]])
    mask = torch.ones(2, 2).bool()
    assert loss("token_mean", losses, mask, weight) == pytest.approx((4 + 1 + 3) / 3)


def test_coefficients_are_float32() -> None:
    assert_close(
        coefficients(MASK[:1], torch.ones(1, 4), "token_mean", length_norm=8),
        torch.full((1, 4), 0.25),
    )


def test_an_unknown_mode_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown aggregation 'median'"):
        loss("median")
