"""Numbers of the worked examples of IGPO, MatchTIR, CM2 and iStar."""

from __future__ import annotations

import pytest
import torch

from trainer.advantages.base import Advantage
from trainer.advantages.turn_level import TurnLevel


@pytest.fixture
def make_turns(make_batch):
    """`make_turns(rewards, outcome=None, group=None)`: rows of turns of two tokens, a tool's token
    after each; a turn's reward is on its last token, the outcome on the last one."""

    def make(rewards, outcome=None, group=None, **fields):
        width = 1 + 3 * max(map(len, rewards))
        process = torch.zeros(len(rewards), width)
        mask = torch.zeros(len(rewards), width, dtype=torch.long)
        turn = torch.full((len(rewards), width), -1)
        for row, values in enumerate(rewards):
            for u, value in enumerate(values):
                mask[row, 3 * u + 1 : 3 * u + 3] = 1
                turn[row, 3 * u + 1 : 3 * u + 3] = u
                process[row, 3 * u + 2] = value
        batch = make_batch(mask.tolist(), outcome, group, turn=turn, **fields)
        return batch.with_(
            rewards=batch.rewards + process,
            outcome=torch.tensor(outcome or [0.0] * len(rewards)),
            extra={"process": process},
        )

    return make


def by_turn(found: torch.Tensor, rewards) -> list[list[float]]:
    assert found[:, 1::3].equal(found[:, 2::3])
    assert not found[:, 0::3].any()
    return [found[i, 1::3][: len(r)].tolist() for i, r in enumerate(rewards)]


def near(found, expected, tolerance=1e-5) -> None:
    for row, want in zip(found, expected, strict=True):
        assert row == pytest.approx(want, abs=tolerance)


GAINS = [[0.20, -0.05, 1.0], [0.02, 0.0]]


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (1.0, [[1.02166841, 1.09920575, 1.74687055], [-1.02166841, -0.53363931]]),
        (0.9, [[0.75452949, 0.92451869, 1.74687055], [-0.96830448, -0.53363931]]),
    ],
)
def test_igpo_by_hand(make_turns, gamma, expected) -> None:
    near(by_turn(TurnLevel(gamma=gamma)(make_turns(GAINS)), GAINS), expected)


def test_the_outcome_is_the_last_turns_reward(make_turns) -> None:
    gains = [[0.20, -0.05, 0.0], [0.02, 0.0]]
    found = by_turn(TurnLevel()(make_turns(gains, [1.0, 0.0])), gains)
    near(found, [[1.02166841, 1.09920575, 1.74687055], [-1.02166841, -0.53363931]])


def test_matchtir_by_hand(make_turns) -> None:
    rewards = [[1, 2 / 3, 1], [1, 0.5], [0, 0]]
    advantage = TurnLevel(
        compare="same_turn", gamma=0.9, turn_weight=0.5, answer_weight=0.5, alone="raw"
    )
    near(
        by_turn(advantage(make_turns(rewards)), rewards),
        [[0.940858, 1.026375, 0.977923], [0.108869, -0.076463], [-1.049727, -0.949912]],
    )
    assert (
        advantage.model_copy(update={"alone": "zero", "answer_weight": 0.0})(make_turns(rewards))[
            0, 7
        ].item()
        == 0.0
    )


def test_cm2_by_hand(make_turns) -> None:
    rewards = [[1.0, 0.6], [0.7, 1.0], [1.0], [0.4, 0.2], [0.0], [0.7, 0.6]]
    advantage = TurnLevel(compare="same_turn", gamma=0, scale="none", least_rows=5)
    first = [0.366667, 0.066667, 0.366667, -0.233333, -0.633333, 0.066667]
    expected = [[a, 0.0][: len(r)] for a, r in zip(first, rewards, strict=True)]
    near(by_turn(advantage(make_turns(rewards)), rewards), expected)


def test_istar_by_hand(make_turns) -> None:
    steps = [[0.2, -0.1, 0.3], [0.05, -0.15], [0.1]]
    batch = make_turns(steps, [1.0, 0.0, 0.0])
    step = TurnLevel(scale="leave_one_out", gamma=0, outcome="answer")
    each = [[0.16, -0.2, 0.28], [-0.02, -0.26], [0.04]]
    near(by_turn(step(batch), steps), each)
    both = step.model_copy(update={"answer_weight": 1.0})
    whole = [1, -0.5, -0.5]
    near(
        by_turn(both(batch), steps),
        [[v + a for v in values] for a, values in zip(whole, each, strict=True)],
    )


def test_a_tools_reward_belongs_to_the_turn_before_it(make_turns) -> None:
    batch = make_turns(GAINS)
    moved = batch.rewards.roll(1, -1)
    moved[:, 0] = 0
    assert TurnLevel()(batch.with_(rewards=moved)).equal(TurnLevel()(batch))


def test_groups_do_not_mix(make_turns) -> None:
    both = TurnLevel()(make_turns(GAINS + GAINS, group=[0, 0, 4, 4]))
    assert both[:2].equal(both[2:])
    assert both[:2].equal(TurnLevel()(make_turns(GAINS)))
    assert not TurnLevel.crosses_groups
    turns = TurnLevel(compare="same_turn")
    both = turns(make_turns(GAINS + GAINS, group=[0, 0, 4, 4]))
    assert both[:2].equal(both[2:])


@pytest.mark.parametrize("compare", ["pool", "same_turn"])
@pytest.mark.parametrize("scale", ["std", "none", "leave_one_out"])
def test_no_signal_is_exactly_zero(make_turns, make_batch, compare, scale) -> None:
    advantage = TurnLevel(compare=compare, scale=scale, answer_weight=1.0, gamma=0, eps=0)
    assert not advantage(make_turns([[0.1, 0.1], [0.1, 0.1]])).any()
    assert not advantage(make_turns([[0.7]])).any()
    assert not advantage(make_batch([[0, 0]])).any()


def test_penalties_are_refused_where_they_would_be_lost(make_turns) -> None:
    batch = make_turns(GAINS)
    batch = batch.with_(rewards=batch.rewards - 0.1 * batch.mask)
    with pytest.raises(ValueError, match=r"turn_level with outcome: answer.*where: loss"):
        TurnLevel(outcome="answer")(batch)
    assert TurnLevel()(batch).any()


def test_it_is_found_by_name() -> None:
    made = Advantage.model_validate({"type": "turn_level", "compare": "same_turn"})
    assert made == TurnLevel(compare="same_turn")
