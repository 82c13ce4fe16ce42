"""Rows as sequences of turns and steps."""

from __future__ import annotations

import torch

from trainer.ops.segments import (
    firsts,
    present,
    spread,
    step_segments,
    sums,
    turn_segments,
)

MASK = torch.tensor([[0, 1, 1, 0, 1], [0, 1, 0, 0, 0], [0] * 5]).bool()
TURN = torch.tensor([[-1, 0, 0, -1, 1], [-1, 0, -1, -1, -1], [-1] * 5])
SEGMENT = torch.tensor([[-1, 0, 0, 0, 1], [-1, 0, 0, 0, 0], [-1] * 5])
VALUES = torch.arange(15.0).view(3, 5)


def test_what_follows_a_turn_belongs_to_it(make_batch) -> None:
    batch = make_batch(MASK.long().tolist(), turn=TURN)
    assert turn_segments(batch).equal(SEGMENT)
    ends = torch.tensor([[0, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0] * 5]).bool()
    steps = step_segments(batch.with_(extra={"step_end": ends}))
    assert steps.tolist() == [[0, 0, 0, 1, 1], [0, 0, 1, 1, 1], [0] * 5]
    assert not step_segments(batch).any()


def test_there_and_back() -> None:
    there = present(SEGMENT, MASK)
    assert there.tolist() == [[True, True], [True, False], [False, False]]
    assert sums(VALUES, SEGMENT, 2).tolist() == [[6, 4], [30, 0], [0, 0]]
    assert firsts(VALUES, SEGMENT, MASK, 2).tolist() == [[1, 4], [6, 0], [0, 0]]
    wide = spread(sums(VALUES, SEGMENT, 2), SEGMENT, MASK)
    assert wide.tolist() == [[0, 6, 6, 0, 4], [0, 30, 0, 0, 0], [0] * 5]


def test_nothing_at_all() -> None:
    none = torch.full((2, 3), -1)
    assert present(none, none > 0).tolist() == [[False], [False]]
    assert not spread(torch.ones(2, 1), none, none > 0).any()
    assert present(none[:0], none[:0] > 0).shape == (0, 1)
