"""GRPO-CARE with the tiny model's tokenizer and given log-probs."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainer.errors import MissingService
from trainer.models.pretrained import Pretrained
from trainer.rewards.base import Reward
from trainer.rewards.care import Care
from trainer.types import Group, Prompt, Rollout, Score, ScoreStatus, Span

RENDERER = Pretrained(
    path=str(Path(__file__).parents[3] / "configs" / "model" / "tiny_text")
).renderer()


class Fixed(Reward):
    values: tuple[float | None, ...]

    async def score(self, group, ctx):
        return [Score(v) for v in self.values]


class Served:
    """Gives the tokens inside the answer the log-prob of their row and all others -9."""

    def __init__(self, inside):
        self.inside, self.rows = inside, []

    async def score(self, reward, group):
        return await reward.score(group, self)

    async def logprobs(self, rows, model="policy"):
        assert model == "policy"
        self.rows = [RENDERER.tokenizer.decode(tokens) for tokens, _ in rows]
        columns = []
        for (tokens, _), value in zip(rows, self.inside, strict=True):
            column = [-9.0] * (len(tokens) - 1)
            opened = tokens.index(RENDERER.encode("<answer>")[0])
            closed = tokens.index(RENDERER.encode("</answer>")[0])
            column[opened : closed - 1] = [value] * (closed - opened - 1)
            columns.append(column)
        return columns


def group_of(*replies):
    rollouts = []
    for reply in replies:
        asked, tokens = RENDERER.encode("1+1="), RENDERER.encode(reply)
        n, m = len(asked), len(tokens)
        question = Span(None, "user", "data", "1+1=", asked, [False] * n, [0.0] * n, [-1] * n)
        answer = Span(0, "assistant", "policy", reply, tokens, [True] * m, [0.0] * m, [0] * m)
        rollouts.append(Rollout(spans=[question, answer]))
    return Group(Prompt("p", ({"role": "user", "content": "1+1="},)), rollouts)


REPLY = "<think>so</think><answer>12</answer>"


async def graded(accuracy, form, inside, replies, **fields):
    reward = Care(accuracy=Fixed(values=accuracy), format=Fixed(values=form), **fields)
    served = Served(inside)
    async with reward.open(SimpleNamespace(renderer=RENDERER)):
        return await reward.score(group_of(*replies), served), served


async def test_the_cards_numbers():
    accuracy, form = (1.0, 1.0, 1.0, 0.0), (1.0, 1.0, 0.0, 1.0)
    scores, served = await graded(accuracy, form, [-0.02, -0.10, -0.30], [REPLY] * 4)
    assert [s.value for s in scores] == [2.5, 2.5, 1.0, 1.0]
    likely = [s.parts["likelihood"] for s in scores]
    assert likely == pytest.approx([0.95, 0.904837, 0.740818, None], abs=1e-6)
    assert [s.parts["bonus"] for s in scores] == [0.5, 0.5, 0.0, 0.0]
    assert served.rows == [f"1+1={REPLY}"] * 3  # wrong ones cost no forward pass
    free, _ = await graded(accuracy, form, [-0.02, -0.10, -0.30], [REPLY] * 4, cap=1.0)
    assert free[0].parts["likelihood"] == pytest.approx(0.980199, abs=1e-6)


async def test_edges():
    scores, served = await graded((0.0, 0.0), (1.0, 1.0), [], [REPLY] * 2)
    assert [s.value for s in scores] == [1.0, 1.0]
    assert served.rows == []
    untagged, _ = await graded((1.0, 1.0), (0.0, 1.0), [-0.1], ["no tag", REPLY])
    assert [s.parts["likelihood"] for s in untagged] == pytest.approx([0.0, math.exp(-0.1)])
    assert [s.value for s in untagged] == [1.0, 2.5]
    partial, _ = await graded((0.05, 0.6), (0.0, 0.0), [-0.1], [REPLY] * 2)
    assert [s.value for s in partial] == pytest.approx([0.05, 0.9])
    missing, _ = await graded((None, 1.0), (None, 1.0), [-0.1], [REPLY] * 2)
    assert missing[0].status is ScoreStatus.NOT_APPLICABLE
    assert missing[1].value == 2.5


async def test_it_needs_a_model():
    reward = Care(accuracy=Fixed(values=(1.0,)), format=Fixed(values=(1.0,)))
    assert "engine" in reward.needs
    with pytest.raises(MissingService, match="needs a model"):
        await reward.score(group_of(REPLY), Served([]))
