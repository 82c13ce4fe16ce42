"""Numbers of the card base-decoupled-ppo."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from trainer.losses.base import Loss
from trainer.losses.decoupled_ppo import DecoupledPpo
from trainer.ops.aggregation import coefficients
from trainer.types import Evaluation

NOW = torch.tensor([[0.5, 0.3, 0.6]]).log()
PROXIMAL = torch.tensor([[0.4, 0.3, 0.8]]).log()
BEHAVIOUR = torch.tensor([[0.2, 0.05, 0.8]]).log()
ADVANTAGES = torch.tensor([[1.0, 1.0, -1.0]])


@pytest.fixture
def batch(make_batch):
    return make_batch(
        [[1, 1, 1]], old_logprobs=PROXIMAL, sampled_logprobs=BEHAVIOUR, advantages=ADVANTAGES
    )


def total(batch, **fields) -> float:
    per_action, _ = DecoupledPpo(**fields)(Evaluation(NOW), batch)
    scale = coefficients(batch.mask, batch.weight, "token_mean", length_norm=3)
    return (per_action * scale).sum().item()


def test_card(batch) -> None:
    per_action, metrics = DecoupledPpo()(Evaluation(NOW), batch)
    assert per_action[0].tolist() == pytest.approx([-2.4, 0.0, 0.8])
    assert metrics["behaviour_weight"][0].tolist() == pytest.approx([2.0, 0.0, 1.0])
    assert metrics["cut"].tolist() == [[0, 1, 0]]
    assert metrics["ratio"][0].tolist() == pytest.approx([1.25, 1.0, 0.75])
    assert total(batch) == pytest.approx(-0.533333, abs=1e-6)
    assert total(batch, action="clamp") == pytest.approx(-2.2)


def test_an_uncapped_weight_and_a_floor(batch) -> None:
    per_action, _ = DecoupledPpo(cap=7)(Evaluation(NOW), batch)
    assert per_action[0].tolist() == pytest.approx([-2.4, -6.0, 0.8])
    assert total(batch, floor=1.5) == pytest.approx(-2.4 / 3)
    assert total(batch, floor=1.5, action="clamp") == pytest.approx((-2.4 - 5 + 0.8 * 1.5) / 3)


def test_dual_clip_bounds_the_loss_before_the_weight(make_batch) -> None:
    batch = make_batch(
        [[1]],
        old_logprobs=torch.tensor([[0.1]]).log(),
        sampled_logprobs=torch.tensor([[0.05]]).log(),
        advantages=-torch.ones(1, 1),
    )
    evaluation = Evaluation(torch.tensor([[0.9]]).log())
    assert DecoupledPpo(dual_clip=3)(evaluation, batch)[0].item() == pytest.approx(2 * 3)
    assert DecoupledPpo()(evaluation, batch)[0].item() == pytest.approx(2 * 9, rel=1e-5)


def test_only_the_surrogate_has_a_gradient(batch) -> None:
    logprobs = NOW.clone().requires_grad_()
    per_action, metrics = DecoupledPpo(cap=7)(Evaluation(logprobs), batch)
    (gradient,) = torch.autograd.grad(per_action.sum(), logprobs)
    # token 1 is clipped from above, token 3 (ratio 0.75, A < 0) from below
    assert gradient[0].tolist() == pytest.approx([0.0, -6.0, 0.0])
    assert not any(metric.requires_grad for metric in metrics.values())


def test_on_one_update_the_forward_is_its_own_proximal_policy(batch) -> None:
    logprobs = PROXIMAL.clone().requires_grad_()
    fresh = batch.with_(old_logprobs=None)
    per_action, metrics = DecoupledPpo()(Evaluation(logprobs), fresh)
    assert (metrics["ratio"] == 1).all()
    (gradient,) = torch.autograd.grad(per_action.sum(), logprobs)
    assert gradient[0].tolist() == pytest.approx([-2.0, 0.0, 1.0])


def test_on_policy_it_is_ppo(batch) -> None:
    equal = batch.with_(sampled_logprobs=PROXIMAL)
    assert total(equal) == pytest.approx((-1.2 - 1.0 + 0.8) / 3)


LOG_WEIGHT = torch.tensor([[0.5, -0.2, 1.2], [-3.0, 0.1, 9.0]])
MASK = torch.tensor([[True, True, True], [True, True, False]])
SEQUENCES = {
    "geometric mean": ({"cap": 1.5}, [[0.0] * 3, [0.234570, 0.234570, 0.0]]),
    "geometric mean, clamped": (
        {"cap": 1.5, "action": "clamp"},
        [[1.5] * 3, [0.234570, 0.234570, 0.0]],
    ),
    "product": ({"aggregate": "sum", "cap": 4.0}, [[0.0] * 3, [0.234570, 0.234570, 0.0]]),
    "largest": ({"aggregate": "max", "cap": 3.0}, [[0.0] * 3, [0.234570, 0.234570, 0.0]]),
    "k1": ({"metric": "k1", "cap": 0.4}, [[0.0] * 3, [0.049787, 1.105171, 0.0]]),
    "k2": ({"metric": "k2", "cap": 2.0}, [[1.648721, 0.818731, 3.320117], [0.0] * 3]),
    "k3": ({"metric": "k3", "cap": 5.0}, [[1.648721, 0.818731, 3.320117], [0.0] * 3]),
}


@pytest.mark.parametrize("name", list(SEQUENCES))
def test_whole_sequences_are_judged(name: str) -> None:
    fields, expected = SEQUENCES[name]
    weight, cut = DecoupledPpo(level="sequence", **fields).weights(LOG_WEIGHT, MASK)
    assert_close(weight, torch.tensor(expected), atol=2e-6, rtol=0)
    assert (cut.any(-1) == (cut | ~MASK).all(-1)).all()


@pytest.mark.parametrize(
    ("metric", "values"),
    [("k1", [0.5, -0.2, 1.2]), ("k2", [0.125, 0.02, 0.72]), ("k3", [0.106531, 0.021403, 0.501194])],
)
def test_metrics_of_tokens(metric: str, values: list[float]) -> None:
    """Each value is the bound that just lets its token pass."""
    for place, value in enumerate(values):
        for slack, passes in ((1e-5, True), (-1e-5, False)):
            if value + slack <= 0:
                continue
            loss = DecoupledPpo(metric=metric, cap=value + slack)
            assert bool(loss.weights(LOG_WEIGHT, MASK)[0][0, place]) == passes


def test_log_ratios_that_are_not_finite_count_as_zero() -> None:
    odd = torch.tensor([[math.inf, -math.inf, math.nan]])
    weight, cut = DecoupledPpo().weights(odd, torch.tensor([[True, True, True]]))
    assert weight.tolist() == [[1.0, 1.0, 1.0]]
    assert not cut.any()


def test_no_weight_overflows_and_an_empty_row_has_none() -> None:
    huge = torch.tensor([[1000.0, 0.0], [5.0, 5.0]])
    mask = torch.tensor([[True, True], [False, False]])
    for aggregate in ("mean", "sum", "max"):
        loss = DecoupledPpo(level="sequence", aggregate=aggregate, cap=1e30)
        weight, cut = loss.weights(huge, mask)
        assert weight.isfinite().all()
        assert not weight[1].any()
        assert not cut[1].any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"floor": 5.0}, "floor = 5 must be below cap = 5"),
        ({"action": "clamp", "metric": "k2"}, "it needs metric: ratio, not k2"),
    ],
)
def test_wrong_settings_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Loss.model_validate({"type": "decoupled_ppo", **fields})
