from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from trainer.errors import CohortError
from trainer.updater import SKIPPED_IN_A_ROW


def weights(learner) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in learner.module.named_parameters()}


def test_out_of_memory_halves_the_budget_and_changes_nothing(
    make_learner, batch, gradients
) -> None:
    """The policy fails with its gradient half written; the result is that of a big memory."""
    expected = gradients(make_learner(), batch)
    learner = make_learner(policy={"memory": 20}, learner={"token_budget": 60})
    found = gradients(learner, batch)
    assert learner.updater.token_budget == 15
    for name, gradient in expected.items():
        assert_close(found[name], gradient, rtol=1e-6, atol=1e-9)


def test_the_report_of_a_repeated_micro_batch_counts_it_once(make_learner, batch) -> None:
    reports = []
    for policy in ({}, {"memory": 20}):
        learner = make_learner(policy=policy)
        reports.append(learner.update(learner.advantage(batch), 1))
    for name, value in reports[0].items():
        assert reports[1][name] == pytest.approx(value, rel=1e-6), name


def test_a_single_row_that_does_not_fit_is_an_error(make_learner, batch) -> None:
    learner = make_learner(policy={"memory": 5})
    with pytest.raises(CohortError, match=r"micro-batch of a single row.*gradient_checkpointing"):
        learner.update(learner.advantage(batch), 1)


def test_an_update_that_is_not_finite_is_skipped_and_counted(make_learner, batch) -> None:
    learner = make_learner()
    ready = learner.advantage(batch)
    learner.update(ready, 1)
    before = weights(learner)
    broken = ready.with_(advantages=torch.full_like(ready.advantages, float("inf")))
    report = learner.update(broken, 2)
    assert report["train/skipped_updates"] == 1.0
    assert report["train/updates"] == 0.0
    assert math.isnan(report["train/grad_norm"])
    assert_close(weights(learner), before, rtol=0, atol=0)
    assert learner.update(ready, 3)["train/skipped_updates"] == 0.0


def test_several_in_a_row_stop_the_run(make_learner, batch) -> None:
    learner = make_learner()
    ready = learner.advantage(batch)
    broken = ready.with_(advantages=torch.full_like(ready.advantages, float("inf")))
    for step in range(1, SKIPPED_IN_A_ROW):
        learner.update(broken, step)
    with pytest.raises(CohortError, match="5 updates in a row had a gradient that is not finite"):
        learner.update(broken, SKIPPED_IN_A_ROW)


def test_a_good_update_resets_the_count(make_learner, batch) -> None:
    learner = make_learner()
    ready = learner.advantage(batch)
    broken = ready.with_(advantages=torch.full_like(ready.advantages, float("inf")))
    for step in range(1, 2 * SKIPPED_IN_A_ROW):
        learner.update(ready if step % SKIPPED_IN_A_ROW == 0 else broken, step)
    assert learner.state_dict()["skipped_in_a_row"] == SKIPPED_IN_A_ROW - 1


def test_a_policy_with_nothing_to_train_is_an_error(make_recipe) -> None:
    from trainer.distributed import Distributed
    from trainer.learner import Learner

    recipe = make_recipe()
    recipe.policy.module.requires_grad_(False)
    with pytest.raises(CohortError, match="no trainable parameter"):
        Learner(recipe, recipe.policy, None, Distributed.start(cpu=True))
