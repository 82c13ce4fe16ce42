"""The worked numbers of ReFine-RFT's multi-reward normalisation."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from trainer.advantages.base import Advantage
from trainer.advantages.mrn import Mrn

ONE = [[0, 1, 1]]
PARTS = {
    "format": [1, 1, 1, 0],
    "acc": [1, 0, 1, 0],
    "think": [1, 1, 0, 1],
    "mllm": [0.8, 0.2, 1, 0.1],
    "emb": [0.9, 0.5, 0.95, 0.3],
}
WEIGHTS = {"format": 1, "acc": 1, "think": 1, "mllm": 0.1, "emb": 0.1}


def batch_of(make_batch, parts, group=None):
    rows = len(next(iter(parts.values())))
    made = make_batch(ONE * rows, [0.0] * rows, group=group or [0] * rows)
    return made.with_(parts={name: torch.tensor(v).float() for name, v in parts.items()})


def by_row(advantages):
    return advantages[:, 1].tolist()


def test_the_cards_numbers(make_batch):
    batch = batch_of(make_batch, PARTS)
    found = Mrn(weights=WEIGHTS)(batch)
    assert by_row(found) == pytest.approx([2.003278, 0.008860, 0.064752, -2.076890], abs=2e-6)
    assert found[:, 0].tolist() == [0, 0, 0, 0]
    columns = {
        "format": [0.4999, 0.4999, 0.4999, -1.4997],
        "acc": [0.865875, -0.865875, 0.865875, -0.865875],
        "mllm": [0.621286, -0.734247, 1.07313, -0.960169],
        "emb": [0.754744, -0.516403, 0.913637, -1.151977],
    }
    for name, column in columns.items():
        assert by_row(Mrn(weights={name: 1})(batch)) == pytest.approx(column, abs=1e-4)


def test_the_cards_weighted_sum_without_it(make_batch):
    """What the sum of the same parts comes to: plain GRPO."""
    total = sum(WEIGHTS[name] * torch.tensor(v) for name, v in PARTS.items())
    found = Advantage.model_validate({"type": "grpo", "eps": 1e-4})(
        make_batch(ONE * 4, total.tolist())
    )
    assert by_row(found) == pytest.approx([1.206517, -0.055950, 0.087512, -1.238079], abs=2e-6)


def test_a_constant_part_counts_nothing_and_a_small_scale_stays_alive(make_batch):
    parts = {
        "big": [100.0, 0.0, 100.0, 0.0],
        "small": [0.001, 0.002, 0.003, 0.0],
        "same": [1.0] * 4,
    }
    batch = batch_of(make_batch, parts)
    small = by_row(Mrn(weights={"small": 1}, eps=0)(batch))
    assert small == pytest.approx([-0.387298, 0.387298, 1.161895, -1.161895], abs=1e-4)
    with_same = by_row(Mrn(weights={"small": 1, "same": 5}, eps=0)(batch))
    assert with_same == small


def test_parts_that_do_not_apply_leave_the_statistics(make_batch):
    nan = float("nan")
    parts = {"a": [1.0, 0.0, nan, nan, nan], "b": [nan, nan, 3.0, 1.0, nan]}
    batch = batch_of(make_batch, parts, group=[0, 0, 1, 1, 1])
    found = by_row(Mrn(weights={"a": 1, "b": 2, "absent": 1}, eps=0)(batch))
    half = 2**-0.5
    assert found == pytest.approx([half, -half, 2 * half, -2 * half, 0])


def test_it_names_parts_that_are_not_there(make_batch):
    with pytest.raises(ValueError, match=r"no part 'iou'; its parts: acc, emb"):
        Mrn(weights={"iou": 1})(batch_of(make_batch, PARTS))
    with pytest.raises(ValidationError, match="all are 0"):
        Mrn(weights={"iou": 0})
