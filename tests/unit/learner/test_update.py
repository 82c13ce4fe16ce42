from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from trainer.modifiers.entropy import Entropy
from trainer.modifiers.kl import Kl
from trainer.ops.aggregation import coefficients
from trainer.ops.batches import take
from trainer.types import Evaluation

MODES = [
    "token_mean",
    "token_mean_local",
    "seq_mean_token_mean",
    "seq_mean_token_sum",
    "seq_mean_token_sum_norm",
    "token_sum_norm",
    "seq_length_weighted",
]


class Uniform:
    def logprobs(self, batch, temperature: float, token_budget: int) -> torch.Tensor:
        return -math.log(11) * batch.mask.float()


def weights(learner) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in learner.module.named_parameters()}


@pytest.mark.parametrize("aggregation", MODES)
@pytest.mark.parametrize("budget", [1, 20])
def test_micro_batches_change_neither_loss_nor_gradient(
    make_learner, batch, gradients, aggregation: str, budget: int
) -> None:
    found, losses, forwards = [], [], []
    for tokens in (budget, 10**6):
        learner = make_learner(
            Uniform(),
            loss={"type": "ppo_clip", "aggregation": aggregation, "local_rows": 2},
            modifiers=(Kl(coef=0.3), Entropy(coef=0.2)),
            learner={"token_budget": tokens},
        )
        found.append(gradients(learner, batch))
        losses.append(learner.update(learner.advantage(learner.annotate(batch)), 2))
        forwards.append(len(learner.policy.seen))
    assert forwards[0] > forwards[1] == 2
    for name, gradient in found[1].items():
        assert_close(found[0][name], gradient, rtol=1e-6, atol=1e-9)
    for name, value in losses[1].items():
        assert losses[0][name] == pytest.approx(value, rel=1e-6), name


def test_the_gradient_is_that_of_the_formula(make_learner, batch, gradients) -> None:
    learner = make_learner(loss={"type": "ppo_clip", "aggregation": "seq_mean_token_mean"})
    ready = learner.advantage(batch)
    evaluation = learner.policy.evaluate(batch)
    per_action, _ = learner.recipe.loss(evaluation, ready)
    own = [(per_action[r] * batch.mask[r]).sum() / batch.mask[r].sum() for r in range(12) if r != 4]
    expected = torch.autograd.grad(
        torch.stack(own).mean(), list(learner.module.parameters()), allow_unused=True
    )
    found = gradients(learner, batch)
    for gradient, wanted in zip(found.values(), expected, strict=True):
        assert_close(gradient, torch.zeros_like(gradient) if wanted is None else wanted)


def test_row_order_does_not_matter(make_learner, batch, gradients) -> None:
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
    one = gradients(make_learner(), batch)
    two = gradients(make_learner(learner={"token_budget": 15}), take(batch, order))
    for name, gradient in one.items():
        assert_close(two[name], gradient, rtol=1e-6, atol=1e-9)


def test_rows_without_advantage_are_skipped_exactly(make_learner, batch, gradients) -> None:
    """Group 2 (equal returns), row 4 (no action), row 2 is the mean of its group."""
    learner = make_learner(loss="ppo_clip")
    skipping = gradients(learner, batch)
    report = learner.update(learner.advantage(batch), 2)
    assert sum(learner.policy.seen) == 2 * 7
    assert report["train/active_rows"] == 7
    whole = make_learner(loss="ppo_clip", modifiers=(Entropy(coef=1e-30),))
    everything = gradients(whole, batch)
    assert sum(whole.policy.seen) == 11
    for name, gradient in everything.items():
        assert_close(skipping[name], gradient, rtol=1e-6, atol=1e-12)


def test_a_batch_without_signal_still_makes_an_update_of_zero(make_learner, batch) -> None:
    """Momentum goes on, as it would with the rows computed."""
    learner = make_learner()
    flat = learner.advantage(batch.with_(rewards=torch.zeros_like(batch.rewards)))
    before = weights(learner)
    report = learner.update(flat, 1)
    assert report["train/active_rows"] == 0
    assert report["train/loss"] == report["train/grad_norm"] == 0.0
    assert len(learner.policy.seen) == 1
    assert_close(weights(learner), before)
    assert len(learner.optimizer.state_dict()["state"]) == len(before)


def test_the_report(make_learner, batch) -> None:
    learner = make_learner(Uniform(), modifiers=(Kl(coef=0.5),), learner={"lr": 0.02})
    ready = learner.advantage(learner.annotate(batch))
    with torch.no_grad():
        now = learner.policy.evaluate(batch, entropy=True)
    mask = batch.mask
    report = learner.update(ready, 1)
    gap = (now.logprobs - batch.sampled_logprobs).abs()[mask]
    assert report["train/logprob_gap_mean"] == pytest.approx(gap.mean().item())
    assert report["train/logprob_gap_max"] == pytest.approx(gap.max().item())
    assert report["train/entropy"] == pytest.approx(now.entropy[mask].mean().item())
    assert report["train/tokens"] == mask.sum().item()
    assert report["train/ratio"] == 1.0
    assert report["train/approx_kl"] == report["train/clip_low"] == 0.0
    kl = report["train/loss"] - report["train/surrogate"]
    assert kl == pytest.approx(0.5 * report["train/kl_ref"], rel=1e-5)
    surrogate = -(ready.advantages[mask]).sum() / mask.sum()
    assert report["train/surrogate"] == pytest.approx(surrogate.item(), abs=1e-7)
    assert report["train/lr"] == 0.02
    assert report["train/updates"] == 1.0
    assert report["train/skipped_updates"] == 0.0
    assert report["train/grad_norm"] > 0


def test_learning_goes_the_right_way(make_learner, batch) -> None:
    learner = make_learner(learner={"epochs": 5})
    ready = learner.advantage(learner.annotate(batch))
    report = learner.update(ready, 1)
    with torch.no_grad():
        now = learner.policy.evaluate(batch).logprobs
    gain = ((now - ready.old_logprobs) * ready.advantages)[batch.mask]
    assert gain.sum() > 0
    assert report["train/approx_kl"] > 0
    assert report["train/updates"] == 5.0


def test_minibatches_are_neighbouring_groups_in_an_order_drawn_from_the_seed(
    make_learner, batch
) -> None:
    rollouts = {"groups_per_step": 4}
    learner = make_learner(learner={"minibatches": 2}, rollouts=rollouts)
    splits = {step: learner.updater._split(batch, step, 0) for step in range(1, 20)}
    first, second = list(range(6)), list(range(6, 12))
    assert {repr(s) for s in splits.values()} == {repr([first, second]), repr([second, first])}
    again = make_learner(learner={"minibatches": 2}, rollouts=rollouts)
    assert all(again.updater._split(batch, step, 0) == parts for step, parts in splits.items())
    other = make_learner(learner={"minibatches": 2}, rollouts=rollouts, seed=4)
    assert any(other.updater._split(batch, step, 0) != parts for step, parts in splits.items())


def test_more_minibatches_than_groups_left(make_learner, batch) -> None:
    """Groups can lose all their rows: a minibatch may be empty, and is an update of zero."""
    learner = make_learner(learner={"minibatches": 4})
    two = take(batch, range(6))
    report = learner.update(learner.advantage(learner.annotate(two)), 1)
    assert report["train/updates"] == 4.0
    assert math.isfinite(report["train/loss"])


def test_gradient_clipping(make_learner, batch, gradients) -> None:
    norms = {}
    for limit in (None, 0.01):
        learner = make_learner(learner={"clip_norm": limit})
        found = gradients(learner, batch)
        norms[limit] = torch.cat([g.flatten() for g in found.values()]).norm().item()
    assert norms[None] > 0.01
    assert norms[0.01] == pytest.approx(0.01, rel=1e-4)


def test_the_rate_is_a_function_of_the_step(make_learner, batch) -> None:
    settings = {"lr": 0.1, "warmup_steps": 2, "schedule": "linear"}
    learner = make_learner(learner=settings)
    ready = learner.advantage(batch)
    rates = [learner.update(ready, step)["train/lr"] for step in (1, 2, 3, 7, 10)]
    assert rates == pytest.approx([0.05, 0.1, 0.1, 0.05, 0.0125])


def test_weight_decay_spares_vectors(make_learner) -> None:
    learner = make_learner(learner={"weight_decay": 0.1})
    for group in learner.optimizer.param_groups:
        assert all(p.dim() >= 2 for p in group["params"]) == (group["weight_decay"] > 0)


def test_state_dict_continues_to_the_same_bits(make_learner, batch) -> None:
    settings = {"epochs": 2, "minibatches": 2, "weight_decay": 0.1, "schedule": "cosine"}
    whole = make_learner(learner=settings)
    for step in (1, 2, 3):
        whole.update(whole.advantage(whole.annotate(batch)), step)
    first = make_learner(learner=settings)
    first.update(first.advantage(first.annotate(batch)), 1)
    second = make_learner(learner=settings)
    second.module.load_state_dict(first.module.state_dict())
    second.load_state_dict(first.state_dict())
    for step in (2, 3):
        second.update(second.advantage(second.annotate(batch)), step)
    for name, value in weights(whole).items():
        assert torch.equal(weights(second)[name], value), name


def test_supervised_fine_tuning_is_identity_and_nll(make_learner, batch) -> None:
    learner = make_learner(advantage="identity", loss="nll", rollouts={"agent": "replay"})
    ready = learner.advantage(learner.annotate(batch))
    losses = [learner.update(ready, step) for step in range(1, 9)]
    assert losses[0]["train/loss"] == pytest.approx(losses[0]["train/nll"])
    assert losses[-1]["train/loss"] < losses[0]["train/loss"]
    assert "train/logprob_gap_mean" not in losses[0]


def test_coefficients_come_from_the_recipe(make_learner, batch) -> None:
    learner = make_learner(
        loss={"type": "ppo_clip", "aggregation": "seq_mean_token_sum_norm"},
        rollouts={"sampling": {"max_tokens": 50}},
    )
    ready = learner.advantage(batch)
    scale = coefficients(
        batch.mask, batch.weight, "seq_mean_token_sum_norm", length_norm=50, local_rows=8
    )
    per_action, _ = learner.recipe.loss(Evaluation(batch.sampled_logprobs), ready)
    assert learner.update(ready, 1)["train/loss"] == pytest.approx(
        (per_action * scale).sum().item(), rel=1e-5
    )
