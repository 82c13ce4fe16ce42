"""Numbers of the worked example of process supervision (arXiv:2402.03300)."""

from __future__ import annotations

import pytest
import torch

from trainer.advantages.base import Advantage
from trainer.advantages.grpo import Grpo
from trainer.advantages.grpo_process import GrpoProcess

SCORES = [[0.9, 0.2], [0.4], [0.7, 0.8, 0.1]]


def test_by_hand(make_steps) -> None:
    found = GrpoProcess()(make_steps(SCORES))
    expected = [[0.201312, -0.956233], [-0.352296], [0.150984, -0.402624, -1.258201]]
    for row, steps in zip(found.tolist(), expected, strict=True):
        each = [value for value in steps for _ in range(2)]
        assert row[1 : 1 + len(each)] == pytest.approx(each, abs=1e-5)
        assert not any(row[:1] + row[1 + len(each) :])


def test_the_outcome_enters_by_its_weight_alone(make_steps) -> None:
    plain, with_outcome = make_steps(SCORES), make_steps(SCORES, [1.0, 0.0, 0.0])
    torch.testing.assert_close(GrpoProcess()(with_outcome), GrpoProcess()(plain))
    own = Grpo(eps=0)(with_outcome.with_(rewards=with_outcome.outcome[:, None]))
    both = GrpoProcess(outcome_weight=0.5)(with_outcome)
    expected = GrpoProcess()(plain) + 0.5 * own[:, 1:2] * plain.mask
    torch.testing.assert_close(both, expected)


def test_groups_do_not_mix(make_steps) -> None:
    both = make_steps([[0.9, 0.2], [0.4], [0.9, 0.2], [0.4]], group=[0, 0, 1, 1])
    first = make_steps([[0.9, 0.2], [0.4]])
    found = GrpoProcess()(both)
    assert found[:2].equal(found[2:])
    assert found[:2].equal(GrpoProcess()(first))
    assert not GrpoProcess().crosses_groups


def test_no_signal_is_exactly_zero(make_steps, make_batch) -> None:
    for scores in ([[0.1, 0.1], [0.1]], [[0.7]]):
        assert not GrpoProcess()(make_steps(scores)).any()
    assert not GrpoProcess(outcome_weight=1)(make_steps([[0.1], [0.1]], [0.3, 0.3])).any()
    assert not GrpoProcess()(make_batch([[1, 1]], [1.0])).any()


def test_a_step_of_score_0_is_a_step(make_steps) -> None:
    found = GrpoProcess()(make_steps([[0.0], [1.0]]))
    assert found[:, 1].tolist() == pytest.approx([-0.707107, 0.707107], abs=1e-6)


def test_actions_after_the_last_step_get_nothing(make_steps) -> None:
    batch = make_steps(SCORES)
    batch.extra["step_end"][0, 4] = False
    batch.extra["process"][0, 4] = 0.0
    batch = batch.with_(rewards=batch.extra["process"])
    assert not GrpoProcess()(batch)[0, 3:].any()


def test_a_shared_step_counts_once(make_steps) -> None:
    """Two leaves of one rollout that share the first step, against a plain one."""
    weight = torch.tensor([[0.5, 0.5, 0.5, 1, 1], [0.5, 0.5, 0.5, 1, 1], [1, 1, 1, 1, 1]])
    shared = make_steps([[0.8, 0.1], [0.8, 0.3], [0.4]], weight=weight)
    pool = torch.tensor([0.8, 0.1, 0.3, 0.4], dtype=torch.double)
    scaled = ((pool - pool.mean()) / pool.std()).tolist()
    found = GrpoProcess()(shared)[:, 1].tolist()
    assert found == pytest.approx(
        [scaled[0] + scaled[1], scaled[0] + scaled[2], scaled[3]], abs=1e-6
    )


def test_penalties_in_the_rewards_are_refused(make_steps) -> None:
    batch = make_steps(SCORES, [1.0, 0.0, 0.5])
    penalised = batch.with_(rewards=batch.rewards - 0.01 * batch.mask)
    with pytest.raises(ValueError, match=r"grpo_process.*where: loss"):
        GrpoProcess()(penalised)


def test_it_is_found_by_name() -> None:
    made = Advantage.model_validate({"type": "grpo_process", "outcome_weight": 1})
    assert made == GrpoProcess(outcome_weight=1)
