"""Numbers of the card base-clip-cov-kl-cov."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from trainer.losses.base import Loss
from trainer.losses.clip_cov import ClipCov
from trainer.losses.ppo_clip import PpoClip
from trainer.ops.across import Across
from trainer.types import Evaluation

NOW = torch.tensor([[0.9, 0.2, 0.99], [0.02, 0.5, 1.0]]).log()
MASK = [[1, 1, 1], [1, 1, 0]]
ADVANTAGES = torch.tensor([[2.0, 2, 2], [-2, -2, 0]])
TOKENS = torch.tensor([[3, 4, 5], [3, 7, 8]])


@pytest.fixture
def batch(make_batch):
    return make_batch(MASK, advantages=ADVANTAGES, tokens=TOKENS, extra={"current_logprobs": NOW})


def dropped(batch, seed: int = 0, **fields) -> list[tuple[int, int]]:
    ready = ClipCov(**fields).on_minibatch(batch, Across.alone(seed))
    return [tuple(place) for place in ready.extra["cov_dropped"].nonzero().tolist()]


def test_card(batch) -> None:
    """Candidates are (0, 0) and (0, 2): two of five may be drawn."""
    assert dropped(batch, share=0.4) == [(0, 0), (0, 2)]
    assert dropped(batch, share=1.0) == [(0, 0), (0, 2)]
    singles = {tuple(dropped(batch, seed)) for seed in range(40)}
    assert singles == {((0, 0),), ((0, 2),)}  # int(2e-4 * 5) = 0 is at least one


def test_the_bounds_of_the_covariance(batch) -> None:
    assert dropped(batch, cov_low=1.9) == [(0, 2)]
    assert dropped(batch, cov_low=5.0, cov_high=7.0) == [(1, 0)]
    assert dropped(batch, cov_low=7.0, cov_high=8.0) == []


def test_a_draw_follows_the_seed_and_not_the_order_of_rows(batch) -> None:
    from trainer.ops.batches import take

    for seed in range(10):
        first = dropped(batch, seed)
        assert dropped(batch, seed) == first
        assert [(1 - row, at) for row, at in dropped(take(batch, [1, 0]), seed)] == first


def test_what_is_clipped_already_is_no_candidate(batch) -> None:
    old = NOW.clone()
    old[0, 0] -= 0.5  # ratio 1.65, A > 0
    assert dropped(batch.with_(old_logprobs=old), clip_high=0.2, share=1.0) == [(0, 2)]
    assert dropped(batch.with_(old_logprobs=old), share=1.0) == [(0, 0), (0, 2)]


def test_dropped_actions_have_neither_loss_nor_gradient(batch) -> None:
    loss = ClipCov(share=0.4, clip_low=0.2, clip_high=0.2)
    old = NOW + torch.tensor([[0.1, -0.1, 0.1], [-0.1, 0.1, 0.0]])
    ready = loss.on_minibatch(batch.with_(old_logprobs=old), Across.alone())
    logprobs = NOW.clone().requires_grad_()
    per_action, metrics = loss(Evaluation(logprobs), ready)
    (gradient,) = torch.autograd.grad(per_action.sum(), logprobs)
    plain, _ = PpoClip()(Evaluation(NOW), ready)
    kept = torch.tensor([[0.0, 1, 0], [1, 1, 1]])
    assert_close(per_action, plain * kept)
    assert ((gradient != 0) == (kept * batch.mask * (ADVANTAGES != 0)).bool()).all()
    assert_close(metrics["cov_dropped"], 1 - kept)
    assert torch.equal(ready.mask, batch.mask)  # denominators still count them


def test_without_advantages_nothing_is_a_candidate(batch) -> None:
    assert dropped(batch.with_(advantages=torch.zeros(2, 3)), share=1.0) == []


def test_its_settings(batch) -> None:
    assert ClipCov().needs == {"current_logprobs"}
    with pytest.raises(ValidationError, match="cov_low = 5 must be below cov_high = 5"):
        Loss.model_validate({"type": "clip_cov", "cov_low": 5})
    with pytest.raises(ValueError, match="current_logprobs: this batch has none"):
        ClipCov().on_minibatch(batch.with_(extra={}), Across.alone())
