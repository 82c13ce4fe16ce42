"""What holds for every loss of the package, also for one that is added tomorrow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from trainer.losses.base import Loss
from trainer.ops.across import Across
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


@pytest.fixture
def batch() -> Batch:
    """All fields filled; row 4 has no advantage, row 5 no action."""
    generator = torch.Generator().manual_seed(7)

    def uniform(low: float, high: float) -> Tensor:
        values = torch.rand(ROWS, WIDTH, generator=generator, dtype=torch.float64)
        return low + (high - low) * values

    mask = torch.arange(WIDTH) < torch.tensor([5, 3, 4, 1, 2, 0])[:, None]
    advantages = torch.tensor([1.2, -0.7, -1.5, 0.4, 0.0, 1.0], dtype=torch.float64)
    old = uniform(-3.0, -0.5)
    return Batch(
        tokens=torch.randint(0, 50, (ROWS, WIDTH), generator=generator),
        mask=mask,
        length=torch.full((ROWS,), WIDTH),
        turn=mask.long() - 1,
        version=mask.long() - 1,
        rewards=uniform(0, 1) * mask,
        weight=torch.ones(ROWS, WIDTH, dtype=torch.float64),
        group=torch.arange(ROWS) // 2,
        rollout=torch.arange(ROWS),
        sampled_logprobs=(old + uniform(-0.4, 0.4)) * mask,
        old_logprobs=old * mask,
        ref_logprobs=(old + uniform(-0.5, 0.5)) * mask,
        values=uniform(-1, 1) * mask,
        advantages=advantages[:, None] * mask,
        returns=uniform(-1, 1) * mask,
        extra={
            "current_logprobs": (old + uniform(-0.5, 0.5)) * mask,
            "old_entropy": uniform(0, 2) * mask,
            "scale": uniform(0.1, 1) * mask,
        },
    )


def evaluation(batch: Batch) -> Evaluation:
    """Of the policy as the last pass saw it."""
    entropy = batch.extra["old_entropy"] + 0.3 * batch.mask
    values = batch.values + 0.7 * torch.sin(torch.arange(WIDTH)) * batch.mask
    leaves = (batch.extra["current_logprobs"], entropy, values)
    return Evaluation(*(leaf.detach().clone().requires_grad_() for leaf in leaves))


@contextmanager
def constants(known: list[Tensor] | None = None) -> Iterator[list[Tensor]]:
    """Notes what every `detach` inside gives; with `known`, gives that instead. A finite
    difference may not move what the gradient takes for a constant."""
    seen: list[Tensor] = []
    plain = Tensor.detach

    def detach(self: Tensor) -> Tensor:
        seen.append(plain(self) if known is None else known[len(seen)])
        return seen[-1]

    Tensor.detach = detach  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Tensor.detach = plain  # type: ignore[method-assign]


def differences(
    scalar: Callable[[list[Tensor]], Tensor], leaves: list[Tensor], step: float = 1e-6
) -> list[Tensor]:
    """Central finite differences of a function of several tensors, one number at a time."""
    found = []
    for number, leaf in enumerate(leaves):
        slope = torch.zeros_like(leaf).flatten()
        for place in range(leaf.numel()):
            sides = []
            for sign in (1, -1):
                moved = leaf.detach().clone().flatten()
                moved[place] += sign * step
                sides.append(
                    scalar([*leaves[:number], moved.view_as(leaf), *leaves[number + 1 :]]).item()
                )
            slope[place] = (sides[0] - sides[1]) / (2 * step)
        found.append(slope.view_as(leaf))
    return found


@every_loss
@pytest.mark.parametrize("on_policy", [False, True])
def test_the_gradient_is_that_of_the_loss(
    batch: Batch, name: str, fields: dict[str, Any], on_policy: bool
) -> None:
    """Against finite differences in float64, with what the loss detaches held still."""
    loss = find(Loss, name)(**fields)
    if on_policy:
        batch = batch.with_(old_logprobs=None)
    ready = loss.on_minibatch(batch, Across.alone())
    scale = batch.extra["scale"]
    now = evaluation(batch)
    leaves = [now.logprobs, now.entropy, now.values]

    def scalar(inputs: list[Tensor]) -> Tensor:
        return (loss(Evaluation(*inputs), ready)[0] * scale).sum()

    with constants() as seen:
        total = scalar(leaves)
    found = torch.autograd.grad(total, leaves, allow_unused=True)

    def frozen(inputs: list[Tensor]) -> Tensor:
        with constants(seen):
            return scalar(inputs)

    with torch.no_grad():
        expected = differences(frozen, [leaf.detach() for leaf in leaves])
    if on_policy:  # off policy a narrow clip may leave none
        assert any(slope.any() for slope in expected)
    for gradient, slope in zip(found, expected, strict=True):
        gradient = torch.zeros_like(slope) if gradient is None else gradient
        assert_close(gradient, slope, rtol=1e-6, atol=1e-8)


@every_loss
def test_it_keeps_its_word_about_rows_without_advantage(
    batch: Batch, name: str, fields: dict[str, Any]
) -> None:
    """`zero_advantage_is_zero_gradient` lets the learner skip rows: they must have none."""
    loss = find(Loss, name)(**fields)
    ready = loss.on_minibatch(batch, Across.alone())
    now = evaluation(batch)
    per_action, _ = loss(now, ready)
    leaves = [now.logprobs, now.entropy, now.values]
    found = torch.autograd.grad(per_action[4].sum(), leaves, allow_unused=True)
    moves = any(gradient is not None and gradient[4, :2].any() for gradient in found)
    if loss.zero_advantage_is_zero_gradient:
        assert not moves
        assert not per_action[4, :2].any()


@every_loss
def test_shapes_and_metrics(batch: Batch, name: str, fields: dict[str, Any]) -> None:
    loss = find(Loss, name)(**fields)
    ready = loss.on_minibatch(batch, Across.alone())
    assert torch.equal(ready.rewards, batch.rewards)
    per_action, metrics = loss(evaluation(batch), ready)
    assert per_action.shape == (ROWS, WIDTH)
    assert per_action.dtype == torch.float64
    assert per_action[batch.mask].isfinite().all()
    for metric in metrics.values():
        assert metric.shape == (ROWS, WIDTH)
        assert not metric.requires_grad
        assert metric[batch.mask].isfinite().all()
    if "ratio" in metrics:
        assert {"clip_low", "clip_high", "approx_kl"} <= set(metrics)


@every_loss
def test_it_survives_a_round_trip(name: str, fields: dict[str, Any]) -> None:
    loss = Loss.model_validate({"type": name, **fields})
    assert Loss.model_validate(loss.model_dump()) == loss


@every_loss
def test_float32_stays_finite_far_from_the_old_policy(
    batch: Batch, name: str, fields: dict[str, Any]
) -> None:
    """A token that the old policy all but excluded, and one that the new one does."""
    old = batch.old_logprobs.clone()
    old[0, 0], old[1, 0] = -300.0, -0.1
    now = old.clone()
    now[0, 0], now[1, 0] = -0.1, -300.0
    extra = batch.extra | {"current_logprobs": now}
    batch = batch.with_(old_logprobs=old, extra=extra)
    loss = find(Loss, name)(**fields)
    ready = loss.on_minibatch(batch, Across.alone())
    seen = evaluation(batch)
    floats = Evaluation(
        *(
            leaf.detach().float().requires_grad_()
            for leaf in (seen.logprobs, seen.entropy, seen.values)
        )
    )
    total = (loss(floats, ready)[0] * batch.mask).sum()
    assert math.isfinite(total.item())
    leaves = [floats.logprobs, floats.entropy, floats.values]
    for gradient in torch.autograd.grad(total, leaves, allow_unused=True):
        assert gradient is None or gradient.isfinite().all()
