"""Cooper's verifier and the discriminator, with a real tiny model under training."""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.context import Context
from trainer.distributed import Distributed
from trainer.errors import MissingService
from trainer.learning import Optimizer
from trainer.models.tiny_text import TinyText
from trainer.policies.causal_lm import CausalLM
from trainer.rewards.model.adversarial import Adversarial
from trainer.rewards.model.cooper import Cooper, _other_number
from trainer.trainees import Trainees
from trainer.types import Group, Prompt, Rollout, Score, ScoreStatus, Span
from trainer.updater import Job

MODEL = TinyText(hidden=32, heads=2, intermediate=48)
LEARNER = {"lr": 0.003}


def context() -> Context:
    job = Job("nll", (), Optimizer(), 0, 9, 2, 8, 1.0)
    facts = {"model": MODEL, "renderer": MODEL.renderer(), "policy": CausalLM(dtype="float32")}
    trainees = Trainees(job, Distributed.start(cpu=True))
    return Context(Path(), 0, 9, "cpu", 0, 1, **facts, trainees=trainees)


class Border:
    """Scores as the border does, for rules that are asked directly."""

    def __init__(self) -> None:
        self.rng = random.Random(0)

    async def score(self, reward: Any, group: Group) -> list[Score]:
        return [Score(float(r.reply.endswith(str(group.prompt.answer)))) for r in group.rollouts]


def asked(question: str, answer: str, *replies: str, **meta: Any) -> Group:
    messages = ({"role": "user", "content": question},)
    rollouts = [
        Rollout([Span(None, "assistant", "policy", reply, [5], [True], [0.0], [0])])
        for reply in replies
    ]
    return Group(Prompt(question, messages, answer=answer, meta=meta), rollouts)


async def steps(reward: Any, groups: list[Group], count: int) -> list[dict[str, float]]:
    reports = []
    for step in range(1, count + 1):
        for group in groups:
            for rollout, score in zip(
                group.rollouts, await reward.score(group, Border()), strict=True
            ):
                rollout.score = score
        _, report = await reward.learn(groups, None, step)
        reports.append(report)
    return reports


def test_cooper_learns_to_tell_right_from_wrong_endings():
    async def run() -> None:
        reward = Cooper(rule="text/exact", learner=LEARNER)
        groups = [asked("1+2=", "3", "3", "4"), asked("2+2=", "4", "so 4", "5", "5")]
        async with reward.open(context()):
            reports = await steps(reward, groups, 25)
            assert reports[0]["pairs"] == 2
            assert reports[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
            assert reports[-1]["loss"] < 0.5
            assert reports[-1]["accuracy"] == 1.0
            scores = [r.score for r in groups[0].rollouts]
            assert scores[0].value > scores[1].value
            assert scores[0].value == pytest.approx(1 / (1 + math.exp(-scores[0].parts["logit"])))
            assert [s.parts["rule"] for s in scores] == [1.0, 0.0]
            state = reward.state_dict()["model"]["weights"]
            state = {name: tensor.clone() for name, tensor in state.items()}
            assert any("value_head" in name for name in state)

    asyncio.run(run())


def test_the_policys_rewards_of_the_card():
    squashed = [(1 + math.tanh(s / 2)) / 2 for s in (1.2, -0.5, 3.0)]
    assert squashed == pytest.approx([0.768525, 0.377541, 0.952574], abs=1e-6)


def test_the_loss_of_the_card():
    """Pairs (1.2, .4) and, invalid and so absent, (0, 3)."""
    from trainer.losses.bradley_terry import BradleyTerry
    from trainer.ops.across import Across
    from trainer.ops.aggregation import coefficients
    from trainer.ops.answers import answer_batch
    from trainer.types import Evaluation

    loss = BradleyTerry()
    batch = loss.on_minibatch(answer_batch([[1, 2]] * 2, [1, 0], [0, 0]), Across.alone())
    values = torch.tensor([[0.0, 1.2], [0.0, 0.4]]).double().requires_grad_()
    per_action, _ = loss(Evaluation(torch.zeros(2, 2), None, values), batch)
    scale = coefficients(batch.mask, batch.weight, loss.aggregation, length_norm=1)
    total = (per_action * scale).sum()
    total.backward()
    assert total.item() == pytest.approx(0.371101, abs=1e-6)
    assert values.grad[0, 1].item() == pytest.approx(-0.310026, abs=1e-6)


def test_without_a_right_answer_there_is_no_pair_and_no_update():
    async def run() -> None:
        reward = Cooper(rule="text/exact", learner=LEARNER)
        async with reward.open(context()):
            (report,) = await steps(reward, [asked("1+2=", "3", "4", "5")], 1)
        assert report == {"pairs": 0.0}

    asyncio.run(run())


def test_a_corruption_that_the_rule_accepts_is_no_pair(monkeypatch):
    import sys
    import types

    module = types.ModuleType("assistant_of_test")
    module.same = lambda question, answer, response: f"or {answer}"

    async def asking(question, answer, response):
        return None if question == "1+2=" else "wrong"

    module.asking = asking
    monkeypatch.setitem(sys.modules, "assistant_of_test", module)

    async def pairs(**fields: Any) -> float:
        reward = Cooper(rule="text/exact", learner=LEARNER, **fields)
        async with reward.open(context()):
            groups = [asked("1+2=", "3", "3"), asked("2+2=", "4", "4")]
            return (await steps(reward, groups, 1))[0]["pairs"]

    assert asyncio.run(pairs(corrupt="assistant_of_test:same")) == 0
    assert asyncio.run(pairs(corrupt="assistant_of_test:same", check=False)) == 2
    assert asyncio.run(pairs(corrupt="assistant_of_test:asking")) == 1


def test_another_number_at_the_end():
    assert _other_number("1+2=3", 2) == "1+2=5"
    assert _other_number("so 1", -2) == "so 3"
    assert _other_number("x 0.50 m", 1) == "x 1.50 m"
    assert _other_number("none", 1) is None


def test_the_discriminator_tells_references_from_answers_and_then_stops():
    async def run() -> None:
        reward = Adversarial(learner=LEARNER, enough=0.9)
        groups = [
            asked("1+2=", "3", "zz", "zy", demonstration="3"),
            asked("2+2=", "4", "yz", "zz", demonstration=["4", "04"]),
        ]
        async with reward.open(context()):
            reports = await steps(reward, groups, 30)
            assert reports[0]["loss"] == pytest.approx(1.0, abs=1e-5), "both margins, head at 0"
            assert reports[0]["separated"] == 0.5
            assert reports[-1]["separated"] > 0.9
            assert "loss" not in reports[-1], "it was told to stop there"
            values = [r.score.value for g in groups for r in g.rollouts]
            assert max(values) < 0

    asyncio.run(run())


def test_every_other_step_and_rows_without_a_reference():
    async def run() -> None:
        reward = Adversarial(learner=LEARNER, every=3)
        async with reward.open(context()):
            reports = await steps(reward, [asked("1+2=", "3", "zz", demonstration="3")], 4)
            assert [bool(report) for report in reports] == [False, False, True, False]
            (score,) = await reward.score(asked("1+2=", "3", "zz", demonstration=None), Border())
            assert (score.value, score.status) == (None, ScoreStatus.NOT_APPLICABLE)

    asyncio.run(run())


def test_the_state_brings_the_same_values_back():
    async def run() -> None:
        reward, group = Adversarial(learner=LEARNER), asked("1+2=", "3", "zz", demonstration="3")
        async with reward.open(context()):
            await steps(reward, [group], 3)
            state = torch.utils._pytree.tree_map(
                lambda x: x.clone() if isinstance(x, torch.Tensor) else x, reward.state_dict()
            )
            (before,) = await reward.score(group, Border())
        async with reward.open(context()):
            (fresh,) = await reward.score(group, Border())
            reward.load_state_dict(state)
            (after,) = await reward.score(group, Border())
        assert fresh.value != before.value
        assert after.value == before.value

    asyncio.run(run())


def test_without_a_run_it_says_so():
    with pytest.raises(MissingService, match="needs a run that opens its model"):
        asyncio.run(Cooper(rule="text/exact").values([[1, 2]]))
