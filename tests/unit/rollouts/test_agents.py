"""Sessions and agents, against the scripted engine and a real renderer."""

from __future__ import annotations

import pytest

from trainer.engines.base import Engine, Sampling
from trainer.errors import DataError
from trainer.models.base import Model
from trainer.plugin import find
from trainer.rollouts.base import Agent, Session, path_inputs, seed_of
from trainer.types import Prompt, Status

PROMPT = Prompt("p", ({"role": "user", "content": "1+1="},), answer="2", serial=5)


@pytest.fixture
async def stage(make_context):
    """(engine, renderer): the engine answers "2", then "3", in turn."""
    model = find(Model, "tiny_text")()
    renderer = model.renderer()
    engine = find(Engine, "scripted")(answers=("2", "3"))
    async with engine.open(make_context(model, renderer)):
        yield engine, renderer


async def test_single_turn_records_what_was_sampled(stage):
    engine, renderer = stage
    agent = find(Agent, "single_turn")()
    group = await agent.play(PROMPT, engine, renderer, Sampling(), group_size=2, seed=0)
    assert {r.reply for r in group.rollouts} == {"2", "3"}
    for rollout in group.rollouts:
        question, answer = rollout.spans
        assert (question.author, answer.author) == ("data", "policy")
        assert not any(question.sampled)
        assert all(answer.sampled)
        assert len(answer.tokens) == len(answer.logprobs) == len(answer.version)
        assert answer.tokens[-1] in renderer.stop_ids
        assert rollout.status is Status.OK
        assert rollout.completion == answer.tokens


async def test_members_share_the_prompt_and_differ_in_their_seed(stage, monkeypatch):
    engine, renderer = stage
    seen = []
    sample = type(engine).sample
    monkeypatch.setattr(
        type(engine), "sample", lambda self, request: seen.append(request) or sample(self, request)
    )
    agent = find(Agent, "single_turn")()
    for _ in range(2):
        await agent.play(PROMPT, engine, renderer, Sampling(), group_size=3, seed=0)
    assert len({tuple(r.tokens) for r in seen}) == 1
    assert [r.seed for r in seen[:3]] == [r.seed for r in seen[3:]]
    assert len({r.seed for r in seen}) == 3
    assert [r.order for r in seen[:3]] == [(5, 0, 1), (5, 1, 1), (5, 2, 1)]


async def test_a_session_appends_and_forks(stage):
    engine, renderer = stage
    session = Session.start(PROMPT, engine, renderer, Sampling(), seed=0, member=0)
    await session.sample()
    other = session.fork()
    session.append("user", "environment", "1+2=")
    await session.sample()
    await other.sample()
    rollout = session.rollout
    assert [span.parent for span in rollout.spans] == [None, 0, 1, 2, 1]
    assert rollout.leaves() == [3, 4]
    assert rollout.path(3) == [0, 1, 2, 3]
    assert rollout.spans[2].sampled == [False] * len(rollout.spans[2].tokens)
    assert session.tokens[: len(rollout.spans[0].tokens)] == rollout.spans[0].tokens


async def test_a_cut_answer_is_truncated(stage):
    engine, renderer = stage
    agent = find(Agent, "single_turn")()
    short = Sampling(max_tokens=1)
    group = await agent.play(PROMPT, engine, renderer, short, group_size=1, seed=0)
    assert group.rollouts[0].status is Status.TRUNCATED


async def test_replay_plays_the_column_and_ends_the_turn(stage):
    engine, renderer = stage
    agent = find(Agent, "replay")()
    prompt = Prompt("p", PROMPT.messages, meta={"demonstration": "2"})
    group = await agent.play(prompt, engine, renderer, Sampling(), group_size=1, seed=0)
    (rollout,) = group.rollouts
    assert rollout.reply == "2"
    assert rollout.completion == [*renderer.encode("2"), renderer.stop_ids[0]]


async def test_replay_without_the_column_names_it(stage):
    engine, renderer = stage
    agent = find(Agent, "replay")(column="solution")
    prompt = Prompt("p7", PROMPT.messages, meta={"answer": "2"})
    with pytest.raises(DataError, match=r"'p7'.*'solution'.*answer"):
        await agent.play(prompt, engine, renderer, Sampling(), group_size=1, seed=0)


def test_seeds_are_stable_and_apart():
    assert seed_of(0, 1, 2) == seed_of(0, 1, 2)
    assert 0 <= seed_of(0, 1, 2) < 2**63
    assert len({seed_of(0, serial, member) for serial in range(50) for member in range(8)}) == 400


def test_inputs_of_one_span_are_passed_through_and_of_several_concatenated(make_group):
    import torch

    rollout = make_group().rollouts[0]
    first = {"pixel_values": torch.ones(2, 3)}
    rollout.spans[0].inputs = first
    assert path_inputs(rollout, 1) is first
    rollout.spans[1].inputs = {"pixel_values": torch.zeros(1, 3)}
    assert path_inputs(rollout, 1)["pixel_values"].shape == (3, 3)
    assert path_inputs(rollout, None) == {}


async def test_replay_plays_a_list_one_text_to_each(stage):
    engine, renderer = stage
    prompt = Prompt("p", PROMPT.messages, meta={"responses": ["1", "2", "3"]})
    agent = find(Agent, "replay")(column="responses")
    group = await agent.play(prompt, engine, renderer, Sampling(), group_size=2, seed=0)
    assert [r.reply for r in group.rollouts] == ["1", "2"]
    assert [r.meta for r in group.rollouts] == [{}, {}]
    group = await agent.play(prompt, engine, renderer, Sampling(), group_size=5, seed=0)
    assert len(group.rollouts) == 3
    for bad in ([], ["1", ""], [1]):
        prompt = Prompt("p", PROMPT.messages, meta={"responses": bad})
        with pytest.raises(DataError, match="responses"):
            await agent.play(prompt, engine, renderer, Sampling(), group_size=2, seed=0)


async def test_replay_brings_the_labels_of_its_texts(stage):
    engine, renderer = stage

    async def played(labels):
        meta = {"responses": ["1", "2"], "correctness": labels}
        agent = find(Agent, "replay")(column="responses", labels="correctness")
        prompt = Prompt("p", PROMPT.messages, meta=meta)
        group = await agent.play(prompt, engine, renderer, Sampling(), group_size=8, seed=0)
        return [r.meta["recorded"] for r in group.rollouts]

    assert await played([True, False]) == [1.0, 0.0]
    assert await played([None, 0.5, 1]) == [None, 0.5]
    assert await played(True) == [1.0, 1.0]
    for bad in ([True], ["yes", "no"], "yes"):
        with pytest.raises(DataError, match=r"'p'.*'correctness'"):
            await played(bad)
