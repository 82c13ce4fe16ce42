"""The implicit process-reward model: what it gives, in which order it learns, what it refuses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.context import Context
from trainer.distributed import Distributed
from trainer.errors import ConfigError
from trainer.learning import Optimizer
from trainer.models.tiny_text import TinyText
from trainer.policies.causal_lm import CausalLM
from trainer.rewards.model.implicit_prm import ImplicitPrm
from trainer.trainees import Trainees
from trainer.types import Batch, Score, ScoreStatus
from trainer.updater import Job

MASK = [[0, 1, 1, 1], [0, 1, 1, 0], [0, 1, 1, 1], [0, 1, 0, 0]]
OUTCOMES = [1.0, 0.0, 0.0, 1.0]
PHI = torch.tensor([[0, -0.5, -1, -0.2], [0, -0.4, -0.9, 0], [0, -1, -2, -0.5], [0, -0.3, 0, 0]])
REF = torch.tensor(
    [[0, -0.7, -1.1, -0.6], [0, -0.4, -0.5, 0], [0, -0.8, -1.5, -0.9], [0, -0.6, 0, 0]]
)
Q = PHI - REF


class FakeTrainee:
    """Gives PHI, and after an update PHI + 1 on every action; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.batch: Batch | None = None

    def evaluate(self, batch: Batch) -> Any:
        moved = float("update" in self.asked) * batch.mask
        self.asked.append("evaluate")
        return type("Seen", (), {"logprobs": PHI[: len(batch.mask)] + moved})

    def reference_logprobs(self, batch: Batch) -> torch.Tensor:
        return REF[: len(batch.mask)]

    def update(self, batch: Batch, step: int, seen: torch.Tensor | None = None) -> dict[str, float]:
        self.asked.append("update")
        self.batch = batch
        seen[:] = PHI[: len(batch.mask)]
        return {"loss": 0.5}

    def state_dict(self) -> dict[str, Any]:
        return {"asked": list(self.asked)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.asked = state["asked"]


def learned(batch: Batch, gather=lambda value: [value], **fields: Any):
    """(batch, report, trainee) of one step with a fake model."""
    reward = ImplicitPrm(outcome="text/exact", **fields)
    reward._trainee = FakeTrainee()
    reward._context = type("Context", (), {"gather": staticmethod(gather)})
    batch, report = asyncio.run(reward.learn([], batch, 2))
    return batch.extra["process_rewards"], report, reward._trainee


@pytest.fixture
def four(make_batch):
    return make_batch(MASK, OUTCOMES, parts={"outcome": torch.tensor(OUTCOMES)})


def test_the_worked_example(four):
    rewards, report, trainee = learned(four)
    torch.testing.assert_close(rewards, Q / (0.7 + 1e-6))
    assert trainee.asked == ["update"], "one forward pass gives loss and rewards"
    assert report["largest_return"] == pytest.approx(0.7, abs=1e-6)
    assert report["loss"] == 0.5
    # D = .7, -.4, -.3, .3: all four pairs of a right and a wrong answer are in order
    assert report["accuracy"] == 1.0
    assert report["answer_reward"] == pytest.approx(0.075)


@pytest.mark.parametrize(
    ("update", "asked", "moved"),
    [
        ("none", ["evaluate"], 0),
        ("before", ["update", "evaluate"], 1),
        ("after", ["update"], 0),
        ("reverse", ["evaluate", "update"], 0),
    ],
)
def test_the_orders(four, update, asked, moved):
    rewards, _, trainee = learned(four, update=update, normalise="none")
    assert trainee.asked == asked
    torch.testing.assert_close(rewards, Q + moved * four.mask)


def test_a_loss_that_leaves_rows_out_costs_a_pass(four):
    rewards, _, trainee = learned(four, loss="implicit/dpo", normalise="none")
    assert trainee.asked == ["evaluate", "update"]
    torch.testing.assert_close(rewards, Q)


def test_dpo_against_the_mean_is_told_what_was_before(four):
    _, _, trainee = learned(four, loss={"type": "implicit/dpo", "pairs": "mean"}, update="before")
    assert trainee.asked == ["evaluate", "update", "evaluate"]
    torch.testing.assert_close(trainee.batch.old_logprobs, PHI)


def test_granularity_scale_and_reference(four):
    whole, _, _ = learned(four, granularity="whole", scale=0.05, normalise="none")
    expected = torch.tensor([[0, 0, 0, 0.7], [0, 0, -0.4, 0], [0, 0, 0, -0.3], [0, 0.3, 0, 0]])
    torch.testing.assert_close(whole, 0.05 * expected)
    sampled = four.with_(sampled_logprobs=torch.full((4, 4), -2.0))
    against, _, _ = learned(sampled, reference="policy", normalise="none")
    torch.testing.assert_close(against, (PHI + 2) * four.mask)
    bare, _, _ = learned(four, reference="none", normalise="none")
    torch.testing.assert_close(bare, PHI)


def test_normalising_over_all_processes_or_each_alone(four):
    def others(value):
        return [value, (1.4, [0.0, 0.5], [1.0])]

    rewards, report, _ = learned(four, gather=others)
    torch.testing.assert_close(rewards, Q / 1.4)
    assert (report["largest_return"], report["accuracy"]) == (1.4, 0.5)
    rewards, report, _ = learned(four, gather=others, normalise="rank")
    torch.testing.assert_close(rewards, Q / 0.7)
    assert report["largest_return"] == pytest.approx(1.05)


def test_a_model_that_is_its_reference_gives_nothing(four, monkeypatch):
    monkeypatch.setattr(FakeTrainee, "reference_logprobs", lambda self, batch: PHI)
    rewards, report, _ = learned(four)
    assert not rewards.any()
    assert (report["largest_return"], report["accuracy"]) == (0.0, 0.5)


def test_a_process_without_rows_takes_part(make_batch):
    idle = make_batch([[0, 0, 0, 0]], parts={"outcome": torch.tensor([float("nan")])})
    rewards, report, trainee = learned(idle)
    assert trainee.asked == ["update"]
    assert not rewards.any()
    assert "accuracy" not in report


def test_outcomes_must_be_labels(make_batch):
    for outcome in (-0.5, 1.5):
        batch = make_batch([[1]], [outcome], parts={"outcome": torch.tensor([outcome])})
        with pytest.raises(ConfigError, match=rf"text/exact gave {outcome}.*0..1.*shaped"):
            learned(batch)


def test_it_must_be_the_recipes_own_reward(make_batch):
    inside = make_batch([[1]], [1.0], parts={"prm/outcome": torch.ones(1)})
    with pytest.raises(ConfigError, match="move other rewards into its `outcome`"):
        learned(inside)
    weighted = make_batch([[1]], [0.5], parts={"outcome": torch.ones(1)})
    with pytest.raises(ConfigError, match="move other rewards"):
        learned(weighted)


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match=r"policy\.head: must be lm, is value"):
        ImplicitPrm(outcome="text/exact", policy={"type": "causal_lm", "head": "value"})
    with pytest.raises(ValueError, match="RowLoss"):
        ImplicitPrm(outcome="text/exact", loss="ppo_clip")


def test_the_value_is_the_outcomes(make_group):
    class Border:
        async def score(self, reward, group):
            return [Score(1.0, parts={"exact": 1.0}), Score(status=ScoreStatus.RAISED)]

    reward = ImplicitPrm(outcome="text/exact")
    first, second = asyncio.run(reward.score(make_group(), Border()))
    assert (first.value, first.parts) == (1.0, {"outcome": 1.0, "outcome/exact": 1.0})
    assert (second.value, second.status) == (None, ScoreStatus.RAISED)


MODEL = TinyText(hidden=32, heads=2, intermediate=48)


def real_context(**fields: Any) -> Context:
    distributed = Distributed.start(cpu=True)
    policy = CausalLM(dtype="float32")
    job = Job("nll", (), Optimizer(lr=0.01), 0, 4, 1, 8, 1.0)
    facts = {"model": MODEL, "renderer": MODEL.renderer(), "policy": policy}
    facts |= {"trainees": Trainees(job, distributed)}
    return Context(Path(), 0, 4, "cpu", 0, 1, **(facts | fields))


@pytest.fixture
def real(make_batch):
    """Two right and two wrong answers over the real tiny model's vocabulary."""
    mask = [[0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 0, 0]]
    tokens = torch.tensor(
        [[9, 8, 20, 21, 1], [9, 8, 30, 1, 0], [9, 8, 40, 41, 1], [9, 8, 50, 0, 0]]
    )
    length = torch.tensor([5, 4, 5, 3])
    outcome = torch.tensor(OUTCOMES)
    return make_batch(
        mask, OUTCOMES, tokens=tokens, length=length, inputs=({},) * 4, parts={"outcome": outcome}
    )


@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 8}], ids=["full", "lora"])
@pytest.mark.parametrize("loss", ["ce", "dpo", "nca", "kto"])
def test_a_real_model_learns_which_answers_are_right(real, lora, loss):
    async def run() -> tuple[list[float], float]:
        reward = ImplicitPrm(
            outcome="text/exact",
            policy={"type": "causal_lm", "dtype": "float32", "lora": lora},
            learner={"lr": 0.02 if lora else 0.003},
            loss=f"implicit/{loss}",
        )
        async with reward.open(real_context()):
            first, report = await reward.learn([], real, 1)
            assert not first.extra["process_rewards"].any(), "it begins as its reference"
            assert (report["accuracy"], report["largest_return"]) == (0.5, 0.0)
            for step in (2, 3, 4):
                batch, report = await reward.learn([], real, step)
        rewards = batch.extra["process_rewards"].sum(-1)
        assert not batch.extra["process_rewards"][~real.mask].any()
        return rewards.tolist(), report["accuracy"]

    rewards, accuracy = asyncio.run(run())
    assert accuracy == 1.0
    assert min(rewards[0], rewards[3]) > max(rewards[1], rewards[2])


def test_the_single_forward_is_what_a_scoring_pass_before_the_update_gives(real):
    async def run(update: str) -> list[torch.Tensor]:
        reward = ImplicitPrm(outcome="text/exact", learner={"lr": 0.01}, update=update)
        async with reward.open(real_context()):
            found = [await reward.learn([], real, step) for step in (1, 2, 3)]
        return [batch.extra["process_rewards"] for batch, _ in found]

    one, two = asyncio.run(run("after")), asyncio.run(run("reverse"))
    for left, right in zip(one, two, strict=True):
        torch.testing.assert_close(left, right)
    assert two[-1].any()


def test_before_it_has_learned_there_is_no_rounding_to_blow_up(four):
    def first(**fields):
        reward = ImplicitPrm(outcome="text/exact", **fields)
        reward._trainee = FakeTrainee()
        reward._context = type("Context", (), {"gather": staticmethod(lambda value: [value])})
        return asyncio.run(reward.learn([], four, 1))[0].extra["process_rewards"]

    assert not first().any()
    assert not first(update="reverse").any()
    assert first(update="before").any()
    assert first(learner={"minibatches": 2}).any()
    assert first(reference="none").any()


def test_a_model_trained_before_is_measured_against_what_it_was_trained_from(real):
    other = TinyText(hidden=32, heads=2, intermediate=48, seed=5)

    async def run(**fields: Any) -> torch.Tensor:
        reward = ImplicitPrm(outcome="text/exact", update="none", normalise="none", **fields)
        async with reward.open(real_context()):
            batch, report = await reward.learn([], real, 1)
            assert "loss" not in report
        return batch.extra["process_rewards"]

    ahead = asyncio.run(run(reference_model=other))
    behind = asyncio.run(run(model=other, reference_model=MODEL))
    assert ahead.any()
    torch.testing.assert_close(ahead, -behind)
    assert not asyncio.run(run(reference_model=MODEL)).abs().gt(1e-5).any()
    with pytest.raises(ValueError, match=r"reference: policy reads no model"):
        ImplicitPrm(outcome="text/exact", reference="policy", reference_model=other)


def test_an_evaluation_opens_no_model():
    async def run() -> None:
        reward = ImplicitPrm(outcome="text/exact")
        async with reward.open(real_context(training=False, trainees=None)):
            assert reward.state_dict() == {}
            reward.load_state_dict({"prm": {}})

    asyncio.run(run())


def test_another_tokenizer_is_refused(tmp_path):
    async def run() -> None:
        reward = ImplicitPrm(outcome="text/exact", model="tiny_vision")
        async with reward.open(real_context()):
            raise AssertionError("opened")

    with pytest.raises(ConfigError, match=r"reward\.model: tiny_vision has another tokenizer"):
        asyncio.run(run())
