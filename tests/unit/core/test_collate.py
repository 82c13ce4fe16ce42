import math
from dataclasses import replace

import pytest
import torch

from trainer.collate import collate
from trainer.types import Group, Prompt, Rollout, Score, Status


def test_outcome_lands_on_the_last_sampled_token(make_group):
    batch = collate([make_group(values=(1.0, 0.5))])
    assert batch.tokens.tolist() == [[1, 2, 3, 4], [1, 2, 5, 0]]
    assert batch.mask.tolist() == [[False, False, True, True], [False, False, True, False]]
    assert batch.rewards.tolist() == [[0, 0, 0, 1.0], [0, 0, 0.5, 0]]
    assert batch.length.tolist() == [4, 3]
    assert batch.version.tolist() == [[-1, -1, 0, 0], [-1, -1, 0, -1]]
    assert batch.group.tolist() == [0, 0]
    assert batch.rollout.tolist() == [0, 1]


def test_an_unscored_rollout_leaves_the_batch(make_group):
    batch = collate([make_group(values=(None, 1.0)), make_group(serial=1, values=(0.0, 1.0))])
    assert batch.group.tolist() == [0, 1, 1]
    assert batch.rollout.tolist() == [1, 2, 3]


def test_nothing_scored_keeps_one_row_without_actions(make_group):
    batch = collate([make_group(values=(None, None))])
    assert len(batch.tokens) == 1
    assert not batch.mask.any()


def test_a_forked_rollout_counts_each_token_once(make_span):
    # prompt -> turn -> (tool -> answer | answer): the shared turn has half its weight in each row.
    rollout = Rollout(
        spans=[
            make_span(None, [1, 2], False),
            make_span(0, [3], True),
            make_span(1, [4], False),
            make_span(2, [5], True),
            make_span(1, [6, 7], True),
        ],
        score=Score(value=0.0, spans={3: 1.0, 4: 0.5}, tokens={4: [0.25, 0.0]}),
    )
    batch = collate([Group(Prompt("0", ()), [rollout])])
    assert batch.mask.shape == (2, 5)
    assert (batch.mask * batch.weight).sum() == 4
    assert batch.rewards.sum(-1).tolist() == [1.0, 0.75]
    assert batch.turn.tolist() == [[-1, -1, 0, -1, 1], [-1, -1, 0, 1, 1]]


def test_parts_are_nan_where_none(make_group):
    group = make_group()
    group.rollouts[0].score.parts = {"format": 1.0, "answer": None}
    batch = collate([group])
    assert batch.parts["format"][0] == 1.0
    assert math.isnan(batch.parts["format"][1])
    assert math.isnan(batch.parts["answer"][0])


def test_rows_of_a_group_share_the_very_same_image_tensors(make_group):
    group = make_group()
    inputs = {"pixel_values": torch.zeros(4, 2)}
    for rollout in group.rollouts:
        rollout.spans[0].inputs = inputs
    first, second = collate([group]).inputs
    assert first["pixel_values"] is second["pixel_values"]


def test_a_batch_in_which_nothing_was_even_sampled(make_group):
    """Every rollout ended before its first token: a row to run through the model is left."""
    group = make_group(values=(None, 1.0))
    for rollout in group.rollouts:
        del rollout.spans[1:]
    batch = collate([group])
    assert batch.tokens.tolist() == [[1, 2]]
    assert not batch.mask.any()
    assert not batch.rewards.any()


def test_no_groups_is_an_error():
    with pytest.raises(IndexError):
        collate([])


def test_steps_and_dense_rewards_are_kept_apart_from_the_outcome(make_group):
    group = make_group(values=(1.0, 0.5))
    first, second = group.rollouts
    first.score = Score(1.0, tokens={1: [0.0, 0.25]}, steps={1: [0, 1]})
    second.status = Status.TRUNCATED
    batch = collate([group])
    assert batch.outcome.tolist() == [1.0, 0.5]
    assert batch.truncated.tolist() == [False, True]
    assert batch.rewards.tolist() == [[0, 0, 0, 1.25], [0, 0, 0.5, 0]]
    assert batch.extra["process"].tolist() == [[0, 0, 0, 0.25], [0, 0, 0, 0]]
    assert batch.extra["step_end"].tolist() == [[False, False, True, True], [False] * 4]


def test_a_batch_without_steps_has_no_columns_for_them(make_group):
    assert collate([make_group()]).extra == {}


def test_a_baseline_gives_no_row_only_its_return(make_group):
    with_one, without, unscored = make_group(), make_group(serial=1), make_group(serial=2)
    greedy = replace(with_one.rollouts[0], score=Score(0.5, spans={1: 0.25}))
    with_one.baseline = greedy
    unscored.baseline = replace(greedy, score=Score())
    batch = collate([with_one, without, unscored])
    assert batch.group.tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.parts["greedy"][:2].tolist() == [0.75, 0.75]
    assert batch.parts["greedy"][2:].isnan().all()
