"""Step scores of a real pair of models, against their own log-probs."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from trainer.context import Context
from trainer.errors import ConfigError, MissingService
from trainer.models.tiny_text import TinyText
from trainer.policies.causal_lm import CausalLM
from trainer.rewards.model.implicit_score import ImplicitScore
from trainer.types import Group, Prompt, Rollout, ScoreStatus, Span

BASE = TinyText(hidden=32, heads=2, intermediate=48)
PHI = {"type": "tiny_text", "hidden": 32, "heads": 2, "intermediate": 48, "seed": 5}


def context() -> Context:
    facts = {"model": BASE, "renderer": BASE.renderer(), "policy": CausalLM(dtype="float32")}
    return Context(Path(), 0, 1, "cpu", 0, 1, **facts)


def group(*replies: str) -> Group:
    renderer = BASE.renderer()
    rollouts = []
    for reply in replies:
        spans = []
        for text, own in (("1+2=", False), (reply, True)):
            tokens = renderer.encode(text) + ([renderer.stop_ids[0]] if own else [])
            n = len(tokens)
            author = "policy" if own else "data"
            parent = 0 if own else None
            spans.append(Span(parent, "x", author, text, tokens, [own] * n, [0.0] * n, [0] * n))
        rollouts.append(Rollout(spans))
    return Group(Prompt("p", ()), rollouts)


async def scored(reward: ImplicitScore, asked: Group):
    async with reward.open(context()):
        return await reward.score(asked, None), [
            [
                model.probe([([*r.spans[0].tokens, *r.spans[1].tokens], {})])[0]
                for r in asked.rollouts
            ]
            for model in reward._models
        ]


def test_steps_are_sums_of_log_ratios():
    reward = ImplicitScore(model=PHI, scale=0.5, splitter={"by": "line"})
    asked = group("a\nbc")
    (score,), (phi, ref) = asyncio.run(scored(reward, asked))
    ratios = [p - r for p, r in zip(phi[0][3:], ref[0][3:], strict=True)]  # a newline b c <eos>
    assert len(ratios) == 5
    steps = [0.5 * sum(ratios[:2]), 0.5 * sum(ratios[2:])]
    assert score.value == pytest.approx(min(steps), abs=1e-6)
    assert score.parts == {"steps": 2.0, "total": pytest.approx(sum(steps), abs=1e-6)}


def test_a_model_against_itself_and_against_nothing():
    same = ImplicitScore(model=PHI, reference=PHI, scale=1.0)
    (score,), _ = asyncio.run(scored(same, group("a\nb")))
    assert score.value == 0.0
    bare = ImplicitScore(model=PHI, reference="none", scale=1.0, over="sum")
    (score,), (phi,) = asyncio.run(scored(bare, group("ab")))
    assert score.value == pytest.approx(math.fsum(phi[0][3:]), abs=1e-5)


def test_an_answer_without_a_step_does_not_apply():
    (score,), _ = asyncio.run(scored(ImplicitScore(model=PHI), group("")))
    assert (score.value, score.status) == (None, ScoreStatus.NOT_APPLICABLE)


def test_it_says_what_it_lacks():
    with pytest.raises(MissingService, match="opens its models"):
        asyncio.run(ImplicitScore(model=PHI).score(group("a"), None))
    with pytest.raises(ConfigError, match="tiny_vision has another tokenizer"):
        asyncio.run(scored(ImplicitScore(model="tiny_vision"), group("a")))


def test_both_models_are_in_the_plan():
    assert len(ImplicitScore(model=PHI).beside()) == 2
    assert len(ImplicitScore(model=PHI, reference="none").beside()) == 1
