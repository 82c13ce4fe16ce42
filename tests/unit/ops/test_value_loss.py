"""The regression of a value head, and how well values predict returns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainer.ops.value_loss import fit, value_loss

NAN = float("nan")


def test_clipping_keeps_the_larger_error() -> None:
    values, old, returns = (torch.tensor([[x]]) for x in (0.9, 0.2, 0.951))
    error, metrics = value_loss(values, old, returns, clip=0.5)
    assert error.item() == pytest.approx((0.7 - 0.951) ** 2 / 2)
    assert metrics["value_clipped"].item() == 1
    assert metrics["value_error"].item() == pytest.approx(0.051**2)
    plain, metrics = value_loss(values, old, returns, clip=None)
    assert plain.item() == pytest.approx(0.051**2 / 2)
    assert "value_clipped" not in metrics


def test_a_value_that_went_too_far_the_wrong_way_is_not_clipped() -> None:
    """The unclipped error is the larger one: its gradient still pulls back."""
    values = torch.tensor([[2.0]], requires_grad=True)
    error, metrics = value_loss(values, torch.zeros(1, 1), torch.full((1, 1), -1.0), clip=0.5)
    (gradient,) = torch.autograd.grad(error.sum(), values)
    assert error.item() == pytest.approx(4.5)
    assert gradient.item() == pytest.approx(3.0)
    assert metrics["value_clipped"].item() == 0


def test_where_the_bound_holds_there_is_no_gradient() -> None:
    values = torch.tensor([[0.9]], requires_grad=True)
    error, _ = value_loss(values, torch.tensor([[0.2]]), torch.tensor([[0.951]]), clip=0.5)
    (gradient,) = torch.autograd.grad(error.sum(), values)
    assert gradient.item() == 0


def test_huber_is_linear_beyond_its_bound() -> None:
    values = torch.tensor([[1.0, 3.0, -4.0]], requires_grad=True)
    error, _ = value_loss(values, torch.zeros(1, 3), torch.zeros(1, 3), clip=None, huber=2.0)
    assert error.tolist()[0] == pytest.approx([0.5, 2 * (3 - 1), 2 * (4 - 1)])
    (gradient,) = torch.autograd.grad(error.sum(), values)
    assert gradient.tolist()[0] == pytest.approx([1.0, 2.0, -2.0])


@pytest.mark.parametrize("huber", [None, 0.3])
@pytest.mark.parametrize("clip", [None, 0.2])
def test_gradient_by_finite_differences(clip: float | None, huber: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    values, old, returns = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    values.requires_grad_()

    def total(v: Tensor) -> Tensor:
        return value_loss(v, old, returns, clip=clip, huber=huber)[0].sum()

    assert torch.autograd.gradcheck(total, (values,), eps=1e-6, atol=1e-7)


def test_fit_by_hand() -> None:
    """R = 0, 1, 2 and V = 1, 1, 2: Var(R) = 2/3, R - V = -1, 0, 0 with variance 2/9."""
    values, returns = torch.tensor([[1.0, NAN, 1.0, 2.0]]), torch.tensor([[0.0, NAN, 1.0, 2.0]])
    found = fit(values, returns, torch.tensor([[1, 0, 1, 1]]), Tensor.clone)
    assert found["value_mean"] == pytest.approx(4 / 3)
    assert found["return_mean"] == pytest.approx(1.0)
    assert found["value_std"] == pytest.approx((2 / 9) ** 0.5)
    assert found["explained_variance"] == pytest.approx(2 / 3)


def test_a_constant_explains_nothing_and_a_bad_value_less() -> None:
    returns = torch.tensor([[0.0, 1.0]])
    weight = torch.ones(1, 2)
    assert fit(torch.full((1, 2), 7.0), returns, weight, Tensor.clone)["explained_variance"] == 0
    assert fit(1 - returns, returns, weight, Tensor.clone)["explained_variance"] == -3


def test_equal_returns_have_no_variance_to_explain() -> None:
    found = fit(torch.rand(2, 3), torch.ones(2, 3), torch.ones(2, 3), Tensor.clone)
    assert "explained_variance" not in found
    assert found["return_mean"] == 1
    assert fit(torch.rand(1, 2), torch.ones(1, 2), torch.zeros(1, 2), Tensor.clone) == {}


def test_weights_count_shared_actions_once() -> None:
    values, returns = torch.tensor([[0.5, 1.0], [0.5, 0.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    weight = torch.tensor([[0.5, 1.0], [0.5, 1.0]])
    found = fit(values, returns, weight, Tensor.clone)
    once = fit(
        torch.tensor([[0.5, 1.0, 0.0]]),
        torch.tensor([[1.0, 1.0, 0.0]]),
        torch.ones(1, 3),
        Tensor.clone,
    )
    assert found == pytest.approx(once)


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    """Two processes: the sums of one are added to those of the other."""
    generator = torch.Generator().manual_seed(1)
    values, returns = torch.randn(2, 6, 4, generator=generator)
    weight = torch.ones(6, 4)
    whole = fit(values, returns, weight, Tensor.clone)
    v, r = values[4:].double(), returns[4:].double()
    mean_v, mean_r = values.double().mean(), returns.double().mean()
    rest = [
        torch.stack([torch.tensor(8.0).double(), v.sum(), r.sum()]),
        torch.stack(
            [
                ((v - mean_v) ** 2).sum(),
                ((r - mean_r) ** 2).sum(),
                ((r - mean_r - v + mean_v) ** 2).sum(),
            ]
        ),
    ]
    first = fit(values[:4], returns[:4], weight[:4], lambda total: total + rest.pop(0))
    assert first == pytest.approx(whole)
