from __future__ import annotations

import torch

from trainer.ops.batches import merge, take


def test_take_keeps_every_field_of_the_row(make_batch) -> None:
    batch = make_batch(
        [[0, 1], [1, 1], [0, 0]],
        [1.0, 2.0, 3.0],
        group=[4, 5, 6],
        inputs=({"a": 1}, {}, {"c": 3}),
        advantages=torch.arange(6.0).view(3, 2),
        parts={"p": torch.tensor([1.0, 2.0, 3.0])},
        extra={"x": torch.arange(6.0).view(3, 2)},
    )
    part = take(batch, [2, 0])
    assert part.group.tolist() == [6, 4]
    assert part.mask.tolist() == [[False, False], [False, True]]
    assert part.advantages.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert part.parts["p"].tolist() == [3.0, 1.0]
    assert part.extra["x"].tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert part.inputs == ({"c": 3}, {"a": 1})
    assert part.old_logprobs is None


def test_take_nothing(make_batch) -> None:
    assert take(make_batch([[0, 1]]), []).mask.shape == (0, 2)


def test_merge_pads_and_keeps_groups_apart(make_batch) -> None:
    one = make_batch([[0, 1, 1]], [1.0], group=[3], parts={"p": torch.tensor([0.5])})
    two = make_batch([[1], [1]], [2.0, 4.0], group=[0, 1], parts={"q": torch.tensor([7.0, 8.0])})
    both = merge([one, two])
    assert both.group.tolist() == [3, 4, 5]
    assert len(set(both.rollout.tolist())) == 3
    assert both.rewards.sum(-1).tolist() == [1.0, 2.0, 4.0]
    assert both.mask.tolist() == [[False, True, True], [True, False, False], [True, False, False]]
    assert both.turn[1].tolist() == [0, -1, -1]
    assert both.parts["p"][0] == 0.5
    assert both.parts["p"].isnan().tolist() == [False, True, True]
    assert both.parts["q"].isnan().tolist() == [True, False, False]


def test_merge_fills_extras_and_keeps_row_columns(make_batch) -> None:
    ends = {"step_end": torch.tensor([[False, True]])}
    one = make_batch([[0, 1]], [1.0], outcome=torch.tensor([1.0]), extra=ends)
    two = make_batch([[1, 1, 1]], [2.0], outcome=torch.tensor([2.0]))
    both = merge([one, two])
    assert both.outcome.tolist() == [1.0, 2.0]
    assert both.extra["step_end"].tolist() == [[False, True, False], [False] * 3]
    assert merge([two, one]).extra["step_end"].dtype is torch.bool
