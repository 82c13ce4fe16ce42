"""What holds for every modifier of the package, also for one that is added tomorrow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.modifiers.base import Modifier
from trainer.ops.across import Across
from trainer.plugin import find, names
from trainer.types import Batch, Evaluation

NEEDED: dict[str, list[dict[str, Any]]] = {
    "kl": [
        {"coef": 0.5, "estimator": estimator, "off_policy_correction": corrected}
        for estimator in ("k1", "k2", "k3", "abs")
        for corrected in (False, True)
    ]
    + [{"coef": 0.5, "straight_through": True}]
    + [{"coef": 0.5, "target": 0.01, "horizon": 10}, {"where": "reward", "coef": 0.5}],
    "tis": [
        {"mode": "token_truncate", "high": 1.1},
        {"mode": "token_mask", "low": 0.8, "high": 1.2},
        {"mode": "sequence_truncate", "high": 1.01},
        {"mode": "sequence_mask", "low": 0.9, "high": 1.1, "batch_normalize": True},
        {"mode": "none", "off_policy_delta": 0.01},
    ],
    "adaptive_entropy": [{"coef": 0.3, "target": 9.0}],
    "token_entropy_mask": [{"low": 0.3, "high": 0.6}, {"renormalize": True}],
    "rejection": [{"level": "token", "high": 1.2}],
}
"""Settings in which every branch of the formula is met."""
MODIFIERS = [(name, fields) for name in names(Modifier) for fields in ({}, *NEEDED.get(name, []))]
every_modifier = pytest.mark.parametrize(
    ("name", "fields"),
    MODIFIERS,
    ids=[f"{name}-{number}" for number, (name, _) in enumerate(MODIFIERS)],
)


def ready(name: str, fields: dict[str, Any], batch: Batch) -> tuple[Modifier, Batch]:
    """A modifier, and the batch as its hooks before the loss leave it."""
    modifier = find(Modifier, name)(**fields)
    batch = modifier.on_batch(batch, torch.clone)
    batch, _ = modifier.on_rewards(batch)
    return modifier, modifier.on_minibatch(batch, Across.alone())


@every_modifier
@pytest.mark.parametrize("on_policy", [False, True])
def test_the_gradient_is_that_of_the_loss(
    full_batch: Batch, seen_now, check_gradient, name: str, fields: dict[str, Any], on_policy: bool
) -> None:
    """The modified loss of a REINFORCE, against finite differences in float64."""
    if on_policy and "old_logprobs" not in find(Modifier, name)(**fields).needs:
        full_batch = full_batch.with_(old_logprobs=None)
    modifier, batch = ready(name, fields, full_batch)

    def scalar(now: Evaluation) -> Tensor:
        per_action = -batch.advantages * now.logprobs
        per_action, _ = modifier.on_loss(per_action, now, batch)
        return (per_action * batch.extra["scale"] * batch.mask).sum()

    assert check_gradient(scalar, seen_now)


@every_modifier
def test_it_keeps_its_word_about_rows_without_gradient(
    full_batch: Batch, seen_now, name: str, fields: dict[str, Any]
) -> None:
    """Where `changes_loss` is False the learner skips rows without advantage."""
    modifier, batch = ready(name, fields, full_batch)
    nothing = torch.zeros_like(seen_now.logprobs) * seen_now.logprobs
    per_action, _ = modifier.on_loss(nothing, seen_now, batch)
    leaves = [seen_now.logprobs, seen_now.entropy, seen_now.values]
    found = torch.autograd.grad(per_action.sum(), leaves, allow_unused=True)
    if not modifier.changes_loss:
        assert not any(gradient is not None and gradient.any() for gradient in found)


@every_modifier
def test_shapes_metrics_and_state(
    full_batch: Batch, seen_now, name: str, fields: dict[str, Any]
) -> None:
    modifier, batch = ready(name, fields, full_batch)
    per_action, metrics = modifier.on_loss(torch.zeros_like(batch.advantages), seen_now, batch)
    assert per_action.shape == full_batch.mask.shape
    for metric in metrics.values():
        assert metric.shape == full_batch.mask.shape
        assert not metric.requires_grad
        assert metric[batch.mask].isfinite().all()
    assert not (batch.mask & ~full_batch.mask).any()
    assert Modifier.model_validate(modifier.model_dump()).model_dump() == modifier.model_dump()
    resumed = find(Modifier, name)(**fields)
    resumed.load_state_dict(modifier.state_dict())
    assert resumed.state_dict() == modifier.state_dict()
