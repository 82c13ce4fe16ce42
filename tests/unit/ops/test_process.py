"""Step rewards of a batch, taken apart."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from trainer.ops.process import (
    others_sum,
    refuse_penalties,
    softmin_weights,
    split_rewards,
    standard_scores,
    step_ends,
    step_lengths,
    step_number,
)

ENDS = torch.tensor([[False, False, True, False, True, False], [False] * 6])
MASK = torch.tensor([[0, 1, 1, 0, 1, 1], [0, 1, 1, 1, 0, 0]]).bool()


def test_rewards_come_apart_without_a_residue(make_batch) -> None:
    """0.1 + 1.1 in float32, less both, is not 0."""
    outcome = [1.1, 0.7]
    process = torch.tensor([[0.0, 0.1, 0.3], [0.0, 0.0, 0.2]])
    batch = make_batch([[0, 1, 1], [0, 1, 1]], outcome, outcome=torch.tensor(outcome))
    batch = batch.with_(rewards=batch.rewards + process, extra={"process": process})
    dense, total, penalty = split_rewards(batch)
    assert dense.float().equal(process)
    assert total.float().tolist() == pytest.approx(outcome)
    assert not penalty.any()
    refuse_penalties(batch, "me")
    kl = torch.tensor([[0, -0.01, 0.02], [0, 1e-4, 0.0]])
    assert_close(split_rewards(batch.with_(rewards=batch.rewards + kl))[2].float(), kl)


def test_without_an_outcome_field_it_is_what_is_not_process(make_batch) -> None:
    batch = make_batch([[1, 1]], [2.0], extra={"process": torch.tensor([[0.5, 0.0]])})
    dense, outcome, penalty = split_rewards(batch)
    assert dense.tolist() == [[0.5, 0]]
    assert outcome.tolist() == [1.5]
    assert not penalty.any()


def test_steps_of_positions(make_batch) -> None:
    assert step_number(ENDS).tolist() == [[0, 0, 0, 1, 1, 2], [0] * 6]
    assert step_lengths(ENDS, MASK).tolist() == [[0, 0, 2, 0, 1, 0], [0] * 6]
    assert not step_ends(make_batch([[1, 1]])).any()


def test_a_step_end_at_the_first_and_the_last_place() -> None:
    ends = torch.tensor([[True, False, True]])
    assert step_lengths(ends, torch.ones(1, 3)).tolist() == [[1, 0, 2]]


def test_softmin_by_hand_and_without_overflow() -> None:
    scores = torch.tensor([[9.0, 0.0, 0.8, 0.0, -0.6, 9.0], [0.0] * 6])
    found = softmin_weights(scores, ENDS, 0.1)
    assert found[0].tolist() == pytest.approx([0, 0, 8.3153e-7, 0, 1 - 8.3153e-7, 0], rel=1e-4)
    assert not found[1].any()
    assert softmin_weights(scores, ENDS, 1e-9)[0].tolist() == [0, 0, 0, 0, 1, 0]


@given(
    st.lists(
        st.tuples(st.integers(-2, 2), st.integers(0, 2), st.sampled_from([0.5, 1.0])), max_size=9
    )
)
def test_standard_scores_against_the_plainest_code(rows) -> None:
    values, group, weight = (list(c) for c in zip(*rows, strict=True)) if rows else ([], [], [])
    found = standard_scores(
        torch.tensor(values).double(), torch.tensor(group).long(), torch.tensor(weight), 0.5
    )
    for i, own in enumerate(group):
        pool = [(values[j], weight[j]) for j in range(len(rows)) if group[j] == own]
        count = sum(w for _, w in pool)
        if count <= 1 or len({v for v, _ in pool}) == 1:
            assert found[i] == 0
            continue
        mean = sum(v * w for v, w in pool) / count
        std = (sum(w * (v - mean) ** 2 for v, w in pool) / (count - 1)) ** 0.5
        assert found[i].item() == pytest.approx((values[i] - mean) / (std + 0.5))


def test_the_sum_of_the_others() -> None:
    found = others_sum(torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([0, 0, 0, 7]))
    assert found.tolist() == [6, 5, 3, 0]
