"""What holds for every loss of the package, also for one that is added tomorrow."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from trainer.losses.base import Loss
from trainer.ops.across import Across
from trainer.ops.batches import take
from trainer.plugin import find, names
from trainer.types import Batch, Evaluation

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "ppo_clip": [{"clip_high": 0.28, "dual_clip": 1.5}],
    "decoupled_ppo": [{"action": "clamp", "cap": 1.1}, {"level": "sequence", "dual_clip": 1.5}],
    "gspo": [
        {"clip_low": 0.1, "clip_high": 0.1},
        {"clip_low": 0.1, "clip_high": 0.1, "level": "token"},
        {"clip_low": 0.2, "clip_high": 0.2, "ratio": "product"},
    ],
    "cispo": [{"is_weight_max": 1.1, "is_weight_min": 0.9, "ppo_mask": True}],
    "gmpo": [{"clip_low": 0.1, "clip_high": 0.1}],
    "clip_cov": [{"cov_low": 0.0, "share": 0.2, "clip_low": 0.2, "clip_high": 0.2}],
    "kl_cov": [{"share": 0.2}],
    "value_clip": [{"clip": None, "huber": 0.3}],
}
"""Settings in which every branch of the formula is met."""
LOSSES = [(name, fields) for name in names(Loss) for fields in ({}, *VARIANTS.get(name, []))]
every_loss = pytest.mark.parametrize(
    ("name", "fields"), LOSSES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(LOSSES)]
)
ROWS, WIDTH = 6, 5


@every_loss
@pytest.mark.parametrize("on_policy", [False, True])
def test_the_gradient_is_that_of_the_loss(
    full_batch: Batch, seen_now, check_gradient, name: str, fields: dict[str, Any], on_policy: bool
) -> None:
    """Against finite differences in float64, with what the loss detaches held still."""
    loss = find(Loss, name)(**fields)
    if on_policy:
        full_batch = full_batch.with_(old_logprobs=None)
    ready = loss.on_minibatch(full_batch, Across.alone())

    def scalar(now: Evaluation) -> Tensor:
        return (loss(now, ready)[0] * ready.extra["scale"]).sum()

    moved = check_gradient(scalar, seen_now)
    assert moved or not on_policy  # off policy a narrow clip may leave no gradient


@every_loss
def test_it_keeps_its_word_about_rows_without_advantage(
    full_batch: Batch, seen_now, name: str, fields: dict[str, Any]
) -> None:
    """`zero_advantage_is_zero_gradient` lets the learner skip rows: they must have none."""
    loss = find(Loss, name)(**fields)
    ready = loss.on_minibatch(full_batch, Across.alone())
    now = seen_now
    per_action, _ = loss(now, ready)
    leaves = [now.logprobs, now.entropy, now.values]
    found = torch.autograd.grad(per_action[4].sum(), leaves, allow_unused=True)
    moves = any(gradient is not None and gradient[4, :2].any() for gradient in found)
    if loss.zero_advantage_is_zero_gradient:
        assert not moves
        assert not per_action[4, :2].any()


@every_loss
def test_rows_may_be_computed_apart(
    full_batch: Batch, seen_now, name: str, fields: dict[str, Any]
) -> None:
    """Micro-batches of one row, of one group where a loss compares the rows of a group, in any
    order: the same loss, gradient and metrics for every action."""
    loss = find(Loss, name)(**fields)
    ready = loss.on_minibatch(full_batch, Across.alone())
    leaves = [seen_now.logprobs, seen_now.entropy, seen_now.values]
    parts = [[4, 5], [0, 1], [2, 3]] if loss.couples_rows else [[5], [3], [0], [4], [1], [2]]

    def part(rows: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        return loss(Evaluation(*(leaf[rows] for leaf in leaves)), take(ready, rows))

    def gradient(total: Tensor) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(total, leaves, allow_unused=True)

    whole, metrics = loss(seen_now, ready)
    pieces = [part(rows) for rows in parts]
    for rows, (per_action, seen) in zip(parts, pieces, strict=True):
        mask = ready.mask[rows]
        assert_close(per_action * mask, whole[rows] * mask)
        assert seen.keys() == metrics.keys()
        for key, metric in seen.items():
            assert_close(metric * mask, metrics[key][rows] * mask, msg=key)
    scale = ready.extra["scale"]
    shares = [(p[0] * scale[rows]).sum() for rows, p in zip(parts, pieces, strict=True)]
    cut = torch.stack(shares).sum()
    for apart, together in zip(gradient(cut), gradient((whole * scale).sum()), strict=True):
        assert (apart is None) == (together is None)
        if apart is not None:
            assert_close(apart, together)


@every_loss
def test_shapes_and_metrics(full_batch: Batch, seen_now, name: str, fields: dict[str, Any]) -> None:
    loss = find(Loss, name)(**fields)
    ready = loss.on_minibatch(full_batch, Across.alone())
    assert torch.equal(ready.rewards, full_batch.rewards)
    per_action, metrics = loss(seen_now, ready)
    assert per_action.shape == (ROWS, WIDTH)
    assert per_action.dtype == torch.float64
    assert per_action[full_batch.mask].isfinite().all()
    for metric in metrics.values():
        assert metric.shape == (ROWS, WIDTH)
        assert not metric.requires_grad
        assert metric[full_batch.mask].isfinite().all()
    if "ratio" in metrics:
        assert {"clip_low", "clip_high", "approx_kl"} <= set(metrics)


@every_loss
def test_it_survives_a_round_trip(name: str, fields: dict[str, Any]) -> None:
    loss = Loss.model_validate({"type": name, **fields})
    assert Loss.model_validate(loss.model_dump()) == loss


@every_loss
def test_float32_stays_finite_far_from_the_old_policy(
    full_batch: Batch, seen_now, name: str, fields: dict[str, Any]
) -> None:
    """A token that the old policy all but excluded, and one that the new one does."""
    old = full_batch.old_logprobs.clone()
    old[0, 0], old[1, 0] = -300.0, -0.1
    now = old.clone()
    now[0, 0], now[1, 0] = -0.1, -300.0
    extra = full_batch.extra | {"current_logprobs": now}
    full_batch = full_batch.with_(old_logprobs=old, extra=extra)
    loss = find(Loss, name)(**fields)
    ready = loss.on_minibatch(full_batch, Across.alone())
    seen = seen_now
    floats = Evaluation(
        *(
            leaf.detach().float().requires_grad_()
            for leaf in (seen.logprobs, seen.entropy, seen.values)
        )
    )
    total = (loss(floats, ready)[0] * full_batch.mask).sum()
    assert math.isfinite(total.item())
    leaves = [floats.logprobs, floats.entropy, floats.values]
    for gradient in torch.autograd.grad(total, leaves, allow_unused=True):
        assert gradient is None or gradient.isfinite().all()
