"""Labels of the data, at the ends of steps; rows that do not fit are named."""

from __future__ import annotations

import json

import pytest

from trainer.collate import collate
from trainer.engines.base import Engine, Sampling
from trainer.errors import DataError
from trainer.models.base import Model
from trainer.ops.steps import Splitter
from trainer.plugin import find
from trainer.prompts.files import Files
from trainer.rewards.process.step_labels import StepLabels
from trainer.rollouts.replay import Replay
from trainer.rollouts.replay_steps import ReplaySteps

STEPS = ["1+2=3", "3+4=8", "8"]


@pytest.fixture
async def played(tmp_path, make_context):
    """`await played(row, agent, reward)`: the scores of a row of a file, as a run gets them."""
    model = find(Model, "tiny_text")()
    renderer = model.renderer()
    engine = find(Engine, "scripted")(answers=("2",))

    async def run(row, agent, reward):
        path = tmp_path / "rows.jsonl"
        path.write_text("\n" + json.dumps({"question": "1+2+4="} | row) + "\n")
        prompt = next(Files(path=(str(path),)).stream(0))
        group = await agent.play(prompt, engine, renderer, Sampling(), group_size=1, seed=0)
        async with reward.open(make_context(model, renderer)):
            scores = await reward.score(group, None)
        for rollout, score in zip(group.rollouts, scores, strict=True):
            rollout.score = score
        return group

    return run


LINES = ReplaySteps(column="steps", separator="\n")


async def test_each_label_lies_on_its_step_end(played):
    group = await played({"steps": STEPS, "labels": [1, 0, 0.25]}, LINES, StepLabels())
    (rollout,) = group.rollouts
    assert rollout.reply == "1+2=3\n3+4=8\n8"
    score = rollout.score
    assert (score.value, score.steps) == (0.0, {1: [5, 11, 13]})
    assert [score.tokens[1][end] for end in (5, 11, 13)] == [1.0, 0.0, 0.25]
    batch = collate([group])
    assert batch.extra["step_end"][0].nonzero().flatten().tolist() == [11, 17, 19]
    assert batch.extra["process"][0, 19] == 0.25


async def test_text_is_cut_by_the_splitter(played):
    row = {"demonstration": "1+2=3\n3+4=7\n7", "labels": [True, False, None]}
    group = await played(row, Replay(), StepLabels(splitter=Splitter(by="line")))
    score = group.rollouts[0].score
    assert score.steps == {1: [5, 11]}
    assert [score.tokens[1][end] for end in (5, 11)] == [1.0, 0.0]


async def test_labels_of_other_kinds_are_translated(played):
    reward = StepLabels(column="rating", values={"+": 1, "0": 1, "-": 0, "?": None})
    group = await played({"steps": STEPS, "rating": ["+", "?", "-"]}, LINES, reward)
    score = group.rollouts[0].score
    assert score.steps == {1: [5, 13]}
    assert [score.tokens[1][end] for end in (5, 13)] == [1.0, 0.0]
    neutral = await played({"steps": STEPS, "rating": [0, "+", "-"]}, LINES, reward)
    assert neutral.rollouts[0].score.tokens[1][5] == 1.0


async def test_until_the_first_error(played):
    reward = StepLabels(until_first_error=True)
    group = await played({"steps": STEPS, "labels": [1, 0, 1]}, LINES, reward)
    assert group.rollouts[0].score.steps == {1: [5, 11]}


async def test_one_step_and_no_label_at_all(played):
    group = await played({"steps": ["7"], "labels": [1]}, LINES, StepLabels())
    assert group.rollouts[0].score.steps == {1: [1]}
    group = await played({"steps": ["7"], "labels": [None]}, LINES, StepLabels())
    assert (group.rollouts[0].score.value, group.rollouts[0].score.steps) == (0.0, {})


@pytest.mark.parametrize(
    ("row", "agent", "message"),
    [
        (
            {"steps": STEPS, "labels": [1, 0]},
            LINES,
            r"rows\.jsonl:2: column 'labels' has 2 labels, but rollouts\.agent played 3 steps",
        ),
        (
            {"demonstration": "1\n2", "labels": [1, 0]},
            Replay(),
            r"rows\.jsonl:2: column 'labels' has 2 labels, but reward\.splitter \(by: paragraph\) "
            r"cuts the answer into 1 steps",
        ),
        ({"steps": STEPS}, LINES, r"rows\.jsonl:2: column 'labels' holds None.*reward\.column"),
        ({"steps": STEPS, "labels": "110"}, LINES, "holds '110', it must be a list"),
        (
            {"steps": STEPS, "labels": [1, 0, "good"]},
            LINES,
            r"rows\.jsonl:2: column 'labels', label 2 is 'good'.*reward\.values: {'good': 0}",
        ),
        ({"steps": STEPS, "labels": [1, 0, -1]}, LINES, r"label 2 is -1.*from 0 \(wrong\) to 1"),
        (
            {"steps": "1\n2", "labels": [1, 1]},
            LINES,
            r"rows\.jsonl:2: column 'steps' \(rollouts\.agent\.column\) holds '1\\n2'",
        ),
        ({"steps": [], "labels": []}, LINES, r"rows\.jsonl:2: column 'steps'.*holds \[\]"),
        ({"steps": ["1", " "], "labels": [1, 1]}, LINES, r"rows\.jsonl:2: .*an empty step"),
    ],
)
async def test_rows_that_do_not_fit_are_named(played, row, agent, message):
    with pytest.raises(DataError, match=message):
        await played(row, agent, StepLabels())


def test_the_column_is_needed():
    assert StepLabels(column="rating").needs == {"meta.rating"}
