"""Stale rollouts: which log-probs the ratio is made of, and in which order weights are applied."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from trainer.losses.decoupled_ppo import DecoupledPpo
from trainer.modifiers.entropy import Entropy
from trainer.modifiers.kl import Kl
from trainer.modifiers.mask_truncated import MaskTruncated
from trainer.modifiers.rejection import Rejection
from trainer.modifiers.tis import Tis
from trainer.rollouts.replay import Replay

LAG = {"max_lag": 1}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "none"),
        ({"learner": {"epochs": 2}}, "recompute"),
        ({"rollouts": LAG}, "sampled"),
        ({"rollouts": LAG, "learner": {"epochs": 2}}, "sampled"),
        ({"rollouts": LAG, "modifiers": (Tis(),)}, "none"),
        ({"rollouts": LAG, "modifiers": (Tis(),), "learner": {"minibatches": 2}}, "recompute"),
        ({"rollouts": LAG, "modifiers": (Tis(mode="none", off_policy_delta=1),)}, "sampled"),
        ({"modifiers": (Tis(batch_normalize=True),)}, "recompute"),
        ({"rollouts": LAG, "modifiers": (Rejection(),)}, "recompute"),
        ({"rollouts": LAG, "modifiers": (Rejection(), Tis())}, "recompute"),
        ({"rollouts": LAG, "loss": DecoupledPpo(), "modifiers": (Rejection(),)}, "recompute"),
        ({"rollouts": LAG, "loss": DecoupledPpo()}, "none"),
        ({"rollouts": LAG, "loss": DecoupledPpo(), "learner": {"epochs": 2}}, "recompute"),
        ({"rollouts": LAG, "learner": {"old_logprobs": "recompute"}}, "recompute"),
        ({"rollouts": {"agent": Replay(), "max_lag": 1}}, "none"),
    ],
)
def test_what_auto_comes_to(make_recipe, fields: dict, expected: str) -> None:
    assert make_recipe(**fields).old_logprobs == expected


def test_annotate_follows(make_learner, batch) -> None:
    bypass = make_learner(rollouts=LAG).annotate(batch)
    assert bypass.old_logprobs is batch.sampled_logprobs
    assert make_learner(rollouts=LAG, modifiers=(Tis(),)).annotate(batch).old_logprobs is None
    decoupled = make_learner(rollouts=LAG, loss=DecoupledPpo(), learner={"epochs": 2})
    recomputed = decoupled.annotate(batch).old_logprobs
    assert not torch.equal(recomputed, batch.sampled_logprobs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"modifiers": (Tis(),), "learner": {"old_logprobs": "sampled"}},
            "tis would find none: use auto",
        ),
        (
            {"loss": DecoupledPpo(), "learner": {"old_logprobs": "sampled"}},
            "decoupled_ppo would find none",
        ),
        ({"loss": DecoupledPpo(), "modifiers": (Tis(),)}, "decoupled_ppo and tis would each weigh"),
        (
            {"modifiers": (Rejection(),), "learner": {"old_logprobs": "sampled"}},
            "rejection would find none",
        ),
        ({"modifiers": (Tis(),), "rollouts": {"agent": Replay()}}, "leave tis out"),
    ],
)
def test_corrections_that_cannot_work_are_refused(make_recipe, fields: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_recipe(**fields)


class Halves:
    def logprobs(self, batch, temperature: float, token_budget: int) -> torch.Tensor:
        return (batch.sampled_logprobs - 0.693147) * batch.mask


ORDERS = [
    (Tis(high=1.0), Kl(coef=0.5), Entropy(coef=0.1)),
    (Kl(coef=0.5), Entropy(coef=0.1), Tis(high=1.0)),
]


def test_terms_are_never_weighed_whatever_the_order(make_learner, batch, gradients) -> None:
    first, second = (gradients(make_learner(Halves(), modifiers=order), batch) for order in ORDERS)
    for name, expected in first.items():
        assert torch.equal(second[name], expected), name

    terms = ORDERS[0][1:]
    nothing = Tis(mode="token_mask", low=1e6, high=1e7)
    masked = gradients(make_learner(Halves(), modifiers=(*terms, nothing)), batch)
    no_reward = batch.with_(rewards=torch.zeros_like(batch.rewards))
    alone = gradients(make_learner(Halves(), modifiers=terms), no_reward)
    assert alone["head.weight"].abs().max() > 0
    assert not torch.equal(first["head.weight"], alone["head.weight"])
    for name, expected in alone.items():
        assert_close(masked[name], expected, msg=name)


@pytest.mark.parametrize(
    "modifier",
    [
        Tis(high=1.0),
        Tis(mode="sequence_mask", low=0.1, high=9.0),
        Tis(mode="sequence_truncate", statistic="product", high=0.5, batch_normalize=True),
        Tis(batch_normalize=True, off_policy_delta=0.01),
    ],
)
def test_micro_batches_do_not_change_the_gradient(
    make_learner, batch, gradients, modifier: Tis
) -> None:
    whole, cut = (
        gradients(make_learner(modifiers=(modifier,), learner={"token_budget": budget}), batch)
        for budget in (1000, 7)
    )
    assert whole["head.weight"].abs().max() > 0
    for name, expected in whole.items():
        assert_close(cut[name], expected, rtol=1e-6, atol=1e-9, msg=name)


def test_rows_without_advantage_are_still_spared(make_learner, batch) -> None:
    plain, weighed = make_learner(), make_learner(modifiers=(Tis(),))
    for learner in (plain, weighed):
        learner.update(learner.advantage(learner.annotate(batch)), 1)
    assert sum(weighed.policy.seen) == sum(plain.policy.seen)


def test_the_raw_gap_is_that_of_every_action_whatever_is_masked(make_learner, batch) -> None:
    """Also of rows that are rejected, cut off, without advantage, or in a later minibatch."""
    settings = {"learner": {"old_logprobs": "recompute", "minibatches": 2}}
    with torch.no_grad():
        now = make_learner().policy.evaluate(batch).logprobs
    gap = (now - batch.sampled_logprobs).abs()[batch.mask]
    for modifiers in ((), (Rejection(high=1.0 + 1e-9), MaskTruncated(), Tis(mode="token_mask"))):
        learner = make_learner(modifiers=modifiers, **settings)
        report = learner.update(learner.advantage(learner.annotate(batch)), 1)
        assert report["train/logprob_gap_mean"] == pytest.approx(gap.mean().item())
        assert report["train/logprob_gap_max"] == pytest.approx(gap.max().item())
    assert report["train/grad_norm"] == 0  # the second time nothing was left to train


def test_the_raw_gap_is_reported_next_to_what_the_weights_cut(make_learner, batch) -> None:
    """The gap is between policy and engine as they are, whatever the weights mask."""
    reports = []
    for modifiers in ((), (Tis(mode="token_mask", low=1e6, high=1e7),)):
        learner = make_learner(modifiers=modifiers)
        reports.append(learner.update(learner.advantage(learner.annotate(batch)), 1))
    plain, masked = reports
    for name in ("train/logprob_gap_mean", "train/logprob_gap_max"):
        assert masked[name] == plain[name] > 0
    assert masked["train/tis_weight"] == 0
    assert masked["train/tis_cut"] == 1
    assert masked["train/grad_norm"] == 0 < plain["train/grad_norm"]
