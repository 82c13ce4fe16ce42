"""Numbers of the worked examples of RAFT and RAFT++."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from trainer.advantages.base import Advantage
from trainer.advantages.raft import Raft
from trainer.losses.ppo_clip import PpoClip
from trainer.types import Evaluation


def test_positives_by_hand(make_batch) -> None:
    batch = make_batch([[0, 1]] * 4, [1.0, -1.0, 1.0, 1.0])
    assert Raft()(batch)[:, 1].tolist() == [1, 0, 1, 1]
    assert not Raft()(batch)[:, 0].any()


def test_with_the_clipped_loss_rejected_tokens_dilute(make_batch) -> None:
    mask = [[1] * n + [0] * (4 - n) for n in (3, 2, 1, 4)]
    batch = make_batch(mask, [1.0, -1.0, 1.0, 1.0], old_logprobs=torch.full((4, 4), -0.3))
    for advantage, mean in ((Raft(), -0.96), (Raft(renormalise=True), -1.2)):
        trained = batch.with_(advantages=advantage(batch))
        per_action, _ = PpoClip(clip_low=0.2, clip_high=0.2)(Evaluation(torch.zeros(4, 4)), trained)
        assert_close((per_action * batch.mask).sum() / batch.mask.sum(), torch.tensor(mean))


def test_the_best_by_hand(make_batch) -> None:
    batch = make_batch([[1]] * 5, [0.2, 0.9, 0.9, -3.0, -2.0], group=[0, 0, 0, 1, 1])
    assert Raft(keep="best")(batch).flatten().tolist() == [0, 1, 0, 0, 1]


def test_nothing_kept_is_nothing_learned(make_batch) -> None:
    batch = make_batch([[1, 1]] * 2, [-1.0, 0.0])
    assert not Raft(renormalise=True)(batch).any()
    assert not Raft()(make_batch([[0, 0]], [1.0])).any()


def test_what_it_looks_at() -> None:
    assert Raft(renormalise=True).crosses_groups
    assert not Raft().crosses_groups
    assert Advantage.model_validate({"type": "raft", "keep": "best"}) == Raft(keep="best")
