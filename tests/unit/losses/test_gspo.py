"""Numbers of the card base-gspo."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from trainer.losses.base import Loss
from trainer.losses.gspo import Gspo
from trainer.ops.aggregation import coefficients
from trainer.types import Evaluation

LOG_RATIO = torch.tensor([[0.002, -0.001, 0.0005], [-0.004, 0.001, 9.0]])
MASK = [[1, 1, 1], [1, 1, 0]]
ADVANTAGES = torch.tensor([[1.0, 1, 1], [-1, -1, 0]])
LEVELS = ["sequence", "token"]


@pytest.fixture
def batch(make_batch):
    return make_batch(MASK, old_logprobs=torch.full((2, 3), -2.0), advantages=ADVANTAGES)


def run(loss: Gspo, batch, log_ratio=LOG_RATIO):
    logprobs = (log_ratio - 2).requires_grad_()
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


@pytest.mark.parametrize("level", LEVELS)
def test_card(batch, level: str) -> None:
    per_action, total, gradient, metrics = run(Gspo(level=level), batch)
    assert_close(metrics["ratio"][:, 0], torch.tensor([1.0005, 0.998501]), atol=1e-6, rtol=0)
    assert_close(per_action[:, :2], torch.tensor([[-1.0004] * 2, [0.9997] * 2]))
    assert total == pytest.approx(-0.00035, abs=1e-6)
    assert not gradient.any()  # both rows are clipped as wholes
    assert metrics["clip_high"].tolist() == [[1, 1, 1], [0, 0, 0]]
    assert metrics["clip_low"].tolist() == [[0, 0, 0], [1, 1, 0]]


@pytest.mark.parametrize("level", LEVELS)
def test_card_without_clipping(batch, level: str) -> None:
    _, total, gradient, metrics = run(Gspo(level=level, clip_low=0.2, clip_high=0.2), batch)
    assert total == pytest.approx(-0.001, abs=1e-6)
    s = metrics["ratio"][:, :1]
    lengths = torch.tensor([[3.0], [2.0]])
    expected = -ADVANTAGES * s / lengths / 2 * batch.mask
    assert_close(gradient, expected, atol=1e-6, rtol=0)


def test_with_advantages_per_action_the_levels_part(batch) -> None:
    uneven = batch.with_(advantages=torch.tensor([[3.0, 0, 0], [-1, -1, 0]]))
    options = {"clip_low": 0.2, "clip_high": 0.2}
    _, total, whole, metrics = run(Gspo(**options), uneven)
    _, same, own, _ = run(Gspo(level="token", **options), uneven)
    assert total == pytest.approx(same)
    s = metrics["ratio"][0, 0].item()
    assert whole[0].tolist() == pytest.approx([-s / 6] * 3)
    assert own[0].tolist() == pytest.approx([-s / 2, 0, 0])


def test_the_ratio_of_the_whole_answer(batch) -> None:
    log_ratio = torch.tensor([[0.1, 0.05, -0.05], [-0.3, 0.1, 7.0]])
    loss = Gspo(ratio="product", clip_low=0.2, clip_high=0.2)
    per_action, _, _, metrics = run(loss, batch, log_ratio)
    ratio = torch.tensor([0.1, -0.2]).exp()
    assert_close(metrics["ratio"][:, 0], ratio)
    assert_close(per_action[:, 0], torch.stack([-ratio[0], ratio[1].clamp(min=0.8)]))


@pytest.mark.parametrize("level", LEVELS)
def test_an_empty_row_and_a_huge_ratio(make_batch, level: str) -> None:
    batch = make_batch(
        [[0, 0], [1, 1], [1, 1]],
        old_logprobs=torch.tensor([[-9.0, -9.0], [-500.0, -500.0], [0.0, 0.0]]),
        advantages=torch.tensor([[0.0, 0.0], [-1.0, -1.0], [-1.0, -1.0]]),
    )
    logprobs = torch.tensor([[0.0, 0.0], [0.0, 0.0], [-5000.0, 0.0]])
    per_action, metrics = Gspo(level=level)(Evaluation(logprobs), batch)
    assert metrics["ratio"][0].tolist() == [1, 1]
    assert not per_action[0].any()
    assert metrics["ratio"][1].tolist() == pytest.approx([22026.4658] * 2, rel=1e-5)
    assert per_action.isfinite().all()


def test_its_settings() -> None:
    loss = Loss.model_validate("gspo")
    assert loss == Gspo()
    assert (loss.aggregation, loss.clip_low, loss.clip_high) == ("seq_mean_token_mean", 3e-4, 4e-4)
    with pytest.raises(ValidationError, match="sequence"):
        Loss.model_validate({"type": "gspo", "level": "turn"})
