"""Numbers worked out by hand from joschu.net/blog/kl-approx.html."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from trainer.modifiers.base import Modifier
from trainer.modifiers.kl import Kl
from trainer.types import Evaluation

NOW = torch.tensor([[-1.0, -2.0, -0.1]])
REF = torch.tensor([[-1.5, -1.0, -0.1]])
VALUES = {
    "k1": [0.5, -1.0, 0.0],
    "k2": [0.125, 0.5, 0.0],
    "k3": [0.106531, 0.718282, 0.0],
    "abs": [0.5, 1.0, 0.0],
}
GRADIENTS = {
    "k1": [1.0, 1.0, 1.0],
    "k2": [0.5, -1.0, 0.0],
    "k3": [0.393469, -1.718282, 0.0],
    "abs": [1.0, -1.0, 0.0],
}


def in_loss(kl: Kl, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """What is added to a loss of 0, and its gradient."""
    logprobs = NOW.clone().requires_grad_()
    added, metrics = kl.on_loss(torch.zeros(1, 3), Evaluation(logprobs), batch)
    (gradient,) = torch.autograd.grad(added.sum(), logprobs)
    assert not metrics["kl_ref"].requires_grad
    return added.detach(), gradient


@pytest.mark.parametrize("estimator", list(VALUES))
def test_by_hand(make_batch, estimator: str) -> None:
    batch = make_batch([[1, 1, 1]], ref_logprobs=REF)
    added, gradient = in_loss(Kl(estimator=estimator, coef=2.0), batch)
    assert (added / 2)[0].tolist() == pytest.approx(VALUES[estimator], abs=1e-6)
    assert (gradient / 2)[0].tolist() == pytest.approx(GRADIENTS[estimator], abs=1e-6)


@pytest.mark.parametrize("estimator", list(VALUES))
def test_straight_through_has_the_value_of_one_and_the_gradient_of_k2(
    make_batch, estimator: str
) -> None:
    batch = make_batch([[1, 1, 1]], ref_logprobs=REF)
    added, gradient = in_loss(Kl(estimator=estimator, coef=1, straight_through=True), batch)
    assert added[0].tolist() == pytest.approx(VALUES[estimator], abs=1e-6)
    assert gradient[0].tolist() == pytest.approx(GRADIENTS["k2"], abs=1e-6)


def test_clamps(make_batch) -> None:
    batch = make_batch([[1, 1, 1]], ref_logprobs=torch.tensor([[100.0, -100.0, -0.1]]))
    added, gradient = in_loss(Kl(coef=1, clamp_value=10), batch)
    assert added[0].tolist() == pytest.approx([10.0, 10.0, 0.0])
    assert gradient[0].tolist() == pytest.approx([0.0, 0.0, 0.0])
    added, _ = in_loss(Kl(coef=1, estimator="k1"), batch)
    assert added[0].tolist() == pytest.approx([-20.0, 20.0, 0.0])
    added, _ = in_loss(Kl(coef=1, estimator="k1", clamp_difference=None), batch)
    assert added[0].tolist() == pytest.approx([-101.0, 98.0, 0.0])


def test_off_policy_correction_multiplies_by_the_ratio(make_batch) -> None:
    old = torch.tensor([[-1.2, -2.0, -0.4]])
    batch = make_batch([[1, 1, 1]], ref_logprobs=REF, old_logprobs=old)
    added, gradient = in_loss(Kl(coef=1, off_policy_correction=True), batch)
    ratio, k3, slope = (NOW - old).exp(), torch.tensor([VALUES["k3"]]), GRADIENTS["k3"]
    assert_close(added, ratio * k3, atol=1e-6, rtol=0)
    assert_close(gradient, ratio * (k3 + torch.tensor([slope])), atol=2e-6, rtol=0)


def test_off_policy_correction_on_policy_keeps_the_value(make_batch) -> None:
    batch = make_batch([[1, 1, 1]], ref_logprobs=REF)
    added, gradient = in_loss(Kl(coef=1, estimator="k1", off_policy_correction=True), batch)
    assert added[0].tolist() == pytest.approx(VALUES["k1"])
    assert gradient[0].tolist() == pytest.approx([1 + k for k in VALUES["k1"]])


def test_in_the_rewards(make_batch) -> None:
    batch = make_batch(
        [[1, 1, 0]], [1.0], ref_logprobs=REF, sampled_logprobs=NOW, old_logprobs=None
    )
    kl = Kl(estimator="k1", where="reward", coef=0.1)
    changed, numbers = kl.on_rewards(batch)
    assert changed.rewards[0].tolist() == pytest.approx([-0.05, 1.1, 0.0])
    assert numbers == {"kl_ref": pytest.approx(-0.25)}
    assert batch.rewards[0].tolist() == [0.0, 1.0, 0.0]
    per_action = torch.ones(1, 3)
    assert kl.on_loss(per_action, Evaluation(NOW), batch) == (per_action, {})
    recomputed = batch.with_(old_logprobs=REF)
    assert kl.on_rewards(recomputed)[0].rewards[0].tolist() == pytest.approx([0.0, 1.0, 0.0])


def test_in_the_loss_the_rewards_stay(make_batch) -> None:
    batch = make_batch([[1, 1, 1]], [1.0], ref_logprobs=REF)
    assert Kl().on_rewards(batch) == (batch, {})


def test_only_a_term_in_the_loss_gives_zero_advantage_rows_a_gradient() -> None:
    assert Kl().changes_loss
    assert not Kl(coef=0).changes_loss
    assert not Kl(where="reward").changes_loss


@pytest.mark.parametrize("field", ["straight_through", "off_policy_correction"])
def test_gradient_options_are_refused_where_nothing_is_differentiated(field: str) -> None:
    with pytest.raises(ValidationError, match="use `where: loss`"):
        Modifier.model_validate({"type": "kl", "where": "reward", field: True})


def adapted(make_batch, kl: Kl, divergence: float, rows: int, all_reduce=torch.clone) -> Kl:
    """After a step in which each of `rows` rows has this mean k1."""
    batch = make_batch(
        [[1, 1, 0]] * rows,
        sampled_logprobs=torch.tensor([[-1.0, -2.0, 9.0]]).expand(rows, 3),
        ref_logprobs=torch.tensor([[-1.0, -2.0 - 2 * divergence, -9.0]]).expand(rows, 3),
    )
    kl.on_batch(batch, all_reduce)
    return kl


def test_card_of_the_adaptive_coefficient(make_batch) -> None:
    kl = Kl(estimator="k1", coef=0.1, target=0.1, horizon=10_000)
    adapted(make_batch, kl, 0.3, 256)
    assert kl.state_dict()["coef"] == pytest.approx(0.100512)
    batch = make_batch([[1, 1, 1]], ref_logprobs=REF, sampled_logprobs=NOW)
    added, metrics = kl.on_loss(torch.zeros(1, 3), Evaluation(NOW), batch)
    assert added[0].tolist() == pytest.approx([0.05, -0.1, 0.0])  # this step's is still 0.1
    assert metrics["kl_coef"][0].tolist() == pytest.approx([0.1] * 3)
    adapted(make_batch, kl, 0.1, 4)
    added, metrics = kl.on_loss(torch.zeros(1, 3), Evaluation(NOW), batch)
    assert metrics["kl_coef"][0, 0].item() == pytest.approx(0.100512)
    adapted(make_batch, kl, 0.0, 1000)  # far below: at most 20 percent of n / horizon
    assert kl.state_dict()["coef"] == pytest.approx(0.100512 * (1 - 0.02))


def test_the_adaptive_coefficient_in_the_rewards(make_batch) -> None:
    kl = Kl(estimator="k1", where="reward", coef=0.1, target=0.1, horizon=10)
    adapted(make_batch, kl, 0.11, 5)
    adapted(make_batch, kl, 0.1, 5)  # 10 percent over, times 5 / 10
    batch = make_batch([[1, 1, 0]], [1.0], ref_logprobs=REF, sampled_logprobs=NOW)
    changed, numbers = kl.on_rewards(batch)
    assert numbers["kl_coef"] == pytest.approx(0.105)
    assert changed.rewards[0].tolist() == pytest.approx([-0.0525, 1.105, 0.0])


def test_the_divergence_is_of_all_processes(make_batch) -> None:
    """Here 0.3 on 4 rows, elsewhere -0.1 on 4: together it is on target."""
    kl = Kl(estimator="k1", coef=0.1, target=0.1, horizon=10)
    other = torch.tensor([4 * -0.1, 4.0], dtype=torch.float64)
    adapted(make_batch, kl, 0.3, 4, lambda own: own + other)
    assert kl.state_dict()["coef"] == pytest.approx(0.1)


def test_a_checkpoint_holds_the_coefficient(make_batch) -> None:
    kl, resumed = (Kl(estimator="k1", coef=0.1, target=0.1, horizon=10) for _ in range(2))
    adapted(make_batch, kl, 0.3, 5)
    resumed.load_state_dict(kl.state_dict())
    assert (
        adapted(make_batch, resumed, 0.3, 5).state_dict()
        == adapted(make_batch, kl, 0.3, 5).state_dict()
        == {"coef": pytest.approx(0.121)}
    )


def test_an_adaptive_coefficient_cannot_start_at_zero() -> None:
    with pytest.raises(ValidationError, match="coef: 0 would stay 0"):
        Modifier.model_validate({"type": "kl", "coef": 0, "target": 0.1})
