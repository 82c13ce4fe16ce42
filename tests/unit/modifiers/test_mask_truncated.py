from __future__ import annotations

import pytest
import torch

from trainer.advantages.grpo import Grpo
from trainer.collate import collate
from trainer.modifiers.base import Modifier
from trainer.modifiers.mask_truncated import MaskTruncated
from trainer.types import Status


def masked(batch):
    return MaskTruncated().on_batch(batch, lambda x: x)


def test_a_cut_answer_has_no_actions_but_counts_in_its_group(make_group) -> None:
    group = make_group(values=(1.0, 0.0))
    group.rollouts[1].status = Status.TRUNCATED
    whole = collate([group])
    batch = masked(whole)
    assert batch.mask.tolist() == [[False, False, True, True], [False] * 4]
    found = Grpo()(batch)
    assert found[0].equal(Grpo()(whole)[0])
    assert found[0].any()
    assert not found[1].any()


def test_nothing_cut_changes_nothing(make_group) -> None:
    batch = collate([make_group()])
    assert masked(batch).mask.equal(batch.mask)


def test_everything_cut_leaves_nothing(make_batch) -> None:
    batch = make_batch([[1, 1]], [1.0], truncated=torch.tensor([True]))
    assert not masked(batch).mask.any()
    assert not Grpo()(masked(batch)).any()


def test_a_batch_that_does_not_know(make_batch) -> None:
    with pytest.raises(ValueError, match="mask_truncated"):
        masked(make_batch([[1]]))
    assert Modifier.model_validate("mask_truncated") == MaskTruncated()
    assert not MaskTruncated().changes_loss
