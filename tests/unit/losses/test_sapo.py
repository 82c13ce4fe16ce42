"""Numbers of the card base-sapo."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from trainer.losses.base import Loss
from trainer.losses.sapo import Sapo
from trainer.types import Evaluation

LOG_RATIO = torch.tensor([[0.0, 0.5, -1.0, 3.0]], dtype=torch.float64)


def run(make_batch, advantage: float, log_ratio=LOG_RATIO):
    old = torch.full_like(log_ratio, -4.0)
    batch = make_batch(
        [[1] * 4], old_logprobs=old, advantages=torch.full_like(log_ratio, advantage)
    )
    logprobs = (log_ratio + old).requires_grad_()
    per_action, metrics = Sapo()(Evaluation(logprobs), batch)
    (gradient,) = torch.autograd.grad(per_action.sum(), logprobs)
    return per_action[0], metrics, gradient[0]


@pytest.mark.parametrize(
    ("advantage", "expected"),
    [
        (1.0, [-2.0, -2.626889, -1.388119, -4.0]),
        (-1.0, [1.904762, 2.529512, 1.294869, 3.809524]),
        (0.0, [0.0] * 4),
    ],
)
def test_card(make_batch, advantage: float, expected: list[float]) -> None:
    per_action, _, gradient = run(make_batch, advantage)
    assert_close(per_action, torch.tensor(expected).double(), atol=2e-6, rtol=0)
    assert gradient[0].item() == pytest.approx(-advantage)  # as PPO's on policy


def test_the_gate(make_batch) -> None:
    _, metrics, gradient = run(make_batch, 1.0)
    assert metrics["gate"][0, 1].item() == pytest.approx(0.901753, abs=1e-6)
    assert metrics["gate"][0, 3].item() == pytest.approx(2.05739e-8, rel=1e-5)
    assert_close(gradient, -(LOG_RATIO.exp() * metrics["gate"])[0], atol=1e-6, rtol=1e-5)
    assert metrics["clip_high"].tolist() == [[0, 0, 0, 1]]
    _, metrics, _ = run(make_batch, -1.0, torch.tensor([[-9.0, 0.0, 0.1, 0.0]]))
    assert metrics["clip_low"].tolist() == [[0, 0, 0, 0]]  # even at ratio 0 the gate is 0.77


def test_negative_actions_fade_sooner(make_batch) -> None:
    up, down = (run(make_batch, a)[1]["gate"][0] for a in (1.0, -1.0))
    assert (down[1:] < up[1:]).all()


def test_no_ratio_overflows(make_batch) -> None:
    per_action, _, gradient = run(make_batch, -1.0, torch.tensor([[900.0, -900.0, 0.0, 1.0]]))
    assert per_action.isfinite().all()
    assert gradient.isfinite().all()


def test_its_settings() -> None:
    assert Loss.model_validate("sapo").aggregation == "seq_mean_token_mean"
    with pytest.raises(ValidationError, match="tau_neg"):
        Loss.model_validate({"type": "sapo", "tau_neg": 0})
