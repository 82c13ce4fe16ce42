"""Preferred and rejected answers as one group."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from trainer.engines.base import Engine, Sampling
from trainer.errors import DataError
from trainer.models.base import Model
from trainer.plugin import find
from trainer.rewards.recorded import Recorded
from trainer.rollouts.replay_pairs import ReplayPairs
from trainer.types import Prompt


async def play(agent: ReplayPairs, meta: dict, size: int = 2):
    prompt = Prompt("p", ({"role": "user", "content": "1+1="},), meta=meta, origin="pairs.jsonl:7")
    engine = find(Engine, "scripted")(answers=("2",))
    renderer = find(Model, "tiny_text")().renderer()
    return await agent.play(prompt, engine, renderer, Sampling(), group_size=size, seed=0)


async def test_the_better_answer_comes_first_and_is_worth_more():
    group = await play(ReplayPairs(), {"chosen": "2", "rejected": "13"})
    assert [r.reply for r in group.rollouts] == ["2", "13"]
    assert [len(r.completion) for r in group.rollouts] == [2, 3]
    scores = await Recorded().score(group, None)  # type: ignore[arg-type]
    assert [score.value for score in scores] == [1.0, 0.0]


async def test_messages_and_rankings():
    said = [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}]
    group = await play(ReplayPairs(columns=("a", "b", "c")), {"a": said, "b": "3", "c": "4"}, 3)
    assert [r.reply for r in group.rollouts] == ["2", "3", "4"]
    scores = await Recorded().score(group, None)  # type: ignore[arg-type]
    assert [score.value for score in scores] == [2.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "meta", [{"chosen": "2"}, {"chosen": "2", "rejected": ""}, {"chosen": "2", "rejected": [4]}]
)
async def test_rows_that_do_not_fit_are_named(meta):
    with pytest.raises(DataError, match=r"pairs\.jsonl:7: column 'rejected' \(rollouts\.agent"):
        await play(ReplayPairs(), meta)


async def test_the_group_size_must_be_the_number_of_answers():
    with pytest.raises(DataError, match=r"group_size: 4.*set it to 2"):
        await play(ReplayPairs(), {"chosen": "2", "rejected": "3"}, 4)
    with pytest.raises(ValidationError, match="name one column twice"):
        ReplayPairs(columns=("a", "a"))
