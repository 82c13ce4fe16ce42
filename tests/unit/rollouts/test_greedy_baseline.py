"""A greedy answer beside the group, in a run's own parts."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from trainer.config import Recipe, Scoring
from trainer.engines.base import Engine, Sampling
from trainer.models.base import Model
from trainer.plugin import find
from trainer.rewards.base import Reward
from trainer.rollouts.base import Agent
from trainer.scoring import Scorer
from trainer.summarize import Gathered, lean, summarize
from trainer.types import Prompt, Score, ScoreStatus, Status

make = TypeAdapter(Agent).validate_python
PROMPT = Prompt("p", ({"role": "user", "content": "1+1="},), answer="2", serial=5)


@pytest.fixture
async def played(make_context, monkeypatch):
    """(group of two with its baseline, the requests that made it)."""
    model = find(Model, "tiny_text")()
    renderer, engine = model.renderer(), find(Engine, "scripted")(answers=("2", "3", "2"))
    requests = []
    sample = type(engine).sample
    monkeypatch.setattr(
        type(engine),
        "sample",
        lambda self, request: requests.append(request) or sample(self, request),
    )
    async with engine.open(make_context(model, renderer)):
        sampling = Sampling(temperature=0.7, max_tokens=4)
        group = await make("greedy_baseline").play(
            PROMPT, engine, renderer, sampling, group_size=2, seed=0
        )
    return group, requests


async def test_one_more_answer_at_temperature_0(played):
    group, requests = played
    assert len(group.rollouts) == 2
    assert group.baseline is not None
    assert group.baseline.reply
    assert sorted(r.sampling.temperature for r in requests) == [0.0, 0.7, 0.7]
    assert {r.sampling.max_tokens for r in requests} == {4}
    assert len({tuple(r.tokens) for r in requests}) == 1


async def test_it_is_scored_alone_and_counted_nowhere(played):
    group, _ = played
    reward = TypeAdapter(Reward).validate_python({"type": "text/exact", "extract": "all"})
    async with Scorer.open(reward, Scoring(workers=1), seed=0, total_steps=1) as scorer:
        scores = await scorer.score_group(group, 0)
        assert len(scores) == 2
        assert group.baseline.score.value == float(group.baseline.reply == "2")
        group.baseline.status = Status.ABORTED
        await scorer.score_group(group, 0)
        assert group.baseline.score.status is ScoreStatus.NOT_APPLICABLE
    group.baseline.score, group.baseline.spans[1].inputs = Score(0.25), {"pixel_values": 1}
    for rollout in group.rollouts:
        rollout.score = Score(1.0)
    report = summarize(Gathered(lean([group])), version=0)
    assert report["rollout/count"] == 2
    assert report["reward/mean"] == 1.0
    assert report["reward/greedy"] == 0.25
    assert report["group/zero_variance"] == 1.0
    assert lean([group])[0].baseline.spans[1].inputs == {}


def test_held_out_prompts_are_played_without_it():
    assert make("greedy_baseline").evaluated == make("single_turn")
    assert make("single_turn").evaluated == make("single_turn")


def test_an_agent_that_replays_has_no_greedy_answer():
    with pytest.raises(ValidationError, match=r"agent: replay replays answers.*single_turn"):
        make({"type": "greedy_baseline", "agent": "replay"})


def test_a_recipe_that_needs_a_baseline_says_who_plays_it():
    fields = {"name": "t", "steps": 1, "model": "tiny_text", "prompts": "synthetic/arithmetic"}
    with pytest.raises(ValidationError, match=r"agent: single_turn does not play: set rollouts"):
        Recipe.model_validate(fields | {"advantage": "remax"})
    played = fields | {"advantage": "remax", "rollouts": {"agent": "greedy_baseline"}}
    assert Recipe.model_validate(played).rollouts.agent == make("greedy_baseline")
