from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from trainer.errors import CohortError
from trainer.modifiers.kl import Kl


class Halves:
    """A reference that finds every action half as likely as the engine did."""

    def logprobs(self, batch, temperature: float, token_budget: int) -> torch.Tensor:
        assert temperature == 0.7
        return (batch.sampled_logprobs - 0.693147) * batch.mask


@pytest.mark.parametrize(
    ("learner", "passes"),
    [
        ({}, False),
        ({"minibatches": 2}, True),
        ({"epochs": 2}, True),
        ({"old_logprobs": "recompute"}, True),
    ],
)
def test_the_old_logprob_pass_is_spared_where_the_ratio_is_one(
    make_learner, batch, learner: dict, passes: bool
) -> None:
    annotated = make_learner(learner=learner).annotate(batch)
    assert (annotated.old_logprobs is not None) == passes
    assert annotated.ref_logprobs is None


def test_old_logprobs_are_those_of_the_policy_in_eval_mode(make_learner, batch) -> None:
    """In small micro-batches, at the rollout temperature, without dropout."""
    learner = make_learner(
        policy={"net_dropout": 0.5},
        learner={"epochs": 2, "token_budget": 10},
        rollouts={"sampling": {"temperature": 0.7}},
    )
    annotated = learner.annotate(batch)
    with torch.no_grad():
        whole = learner.policy.evaluate(batch, temperature=0.7).logprobs
    assert_close(annotated.old_logprobs, whole.float())
    assert not annotated.old_logprobs.requires_grad
    assert not annotated.old_logprobs[~batch.mask].any()


def test_the_engines_logprobs_can_stand_in(make_learner, batch) -> None:
    learner = make_learner(learner={"epochs": 2, "old_logprobs": "sampled"})
    assert learner.annotate(batch).old_logprobs is batch.sampled_logprobs


def test_reference_logprobs_only_where_some_plugin_needs_them(make_learner, batch) -> None:
    learner = make_learner(Halves(), modifiers=(Kl(),), rollouts={"sampling": {"temperature": 0.7}})
    annotated = learner.annotate(batch)
    assert_close(annotated.ref_logprobs, (batch.sampled_logprobs - 0.693147) * batch.mask)
    with pytest.raises(CohortError, match="no reference model is open"):
        make_learner(modifiers=(Kl(),)).annotate(batch)


def test_rewards_are_modified_before_advantages(make_learner, batch) -> None:
    kl = Kl(estimator="k1", where="reward", coef=0.1)
    learner = make_learner(
        Halves(), modifiers=(kl,), advantage="dr_grpo", rollouts={"sampling": {"temperature": 0.7}}
    )
    ready = learner.advantage(learner.annotate(batch))
    returns = batch.rewards.sum(-1) - 0.1 * 0.693147 * batch.mask.sum(-1)
    centred = returns[:3] - returns[:3].mean()
    assert_close(ready.advantages[:3], centred[:, None] * batch.mask[:3])
    report = learner.update(ready, 1)
    assert report["train/kl_ref"] == pytest.approx(0.693147)
