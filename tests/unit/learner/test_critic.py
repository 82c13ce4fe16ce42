"""PPO with a critic: a model of its own, or a value head on the policy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from trainer.config import Recipe
from trainer.context import Context
from trainer.distributed import Distributed
from trainer.errors import CheckpointError
from trainer.learner import Learner, policy_job
from trainer.models.tiny_text import TinyText
from trainer.trainees import Trainees
from trainer.types import Batch

MODEL = TinyText(hidden=32, heads=2, intermediate=48)
SHARED = {
    "policy": {"type": "causal_lm", "head": "both"},
    "modifiers": [{"type": "value", "coef": 0.5}],
}
SEPARATE = {"critic": {"learner": {"lr": 1e-3, "token_budget": 10**6}}}

Opened = Callable[..., AbstractAsyncContextManager[Learner]]


def recipe_of(**fields: object) -> Recipe:
    own = {
        "name": "critic",
        "steps": 10,
        "model": MODEL,
        "prompts": "synthetic/arithmetic",
        "advantage": {"type": "gae", "lam": 0.95},
        "rollouts": {"groups_per_step": 4},
        "learner": {"lr": 1e-3, "token_budget": 10**6},
    }
    return Recipe(**(own | fields))


@pytest.fixture
def opened() -> Opened:
    """`async with opened(**recipe fields) as learner`."""

    @asynccontextmanager
    async def open_(**fields: object):
        recipe = recipe_of(**fields)
        distributed = Distributed.start(cpu=True)
        context = Context(
            folder=Path(),
            seed=0,
            total_steps=recipe.steps,
            device="cpu",
            rank=0,
            world=1,
            model=MODEL,
            renderer=SimpleNamespace(banned_ids=(0, 1)),
        )
        async with recipe.policy.open(context):
            critic, network = None, recipe.critic_policy
            if recipe.critic is not None and network is not None:
                await network.open(replace(context)).__aenter__()
                trainees = Trainees(policy_job(recipe), distributed)
                settings = recipe.critic
                critic = trainees(network, settings.loss, settings.learner, "critic.learner")
            yield Learner(recipe, recipe.policy, None, distributed, critic)

    return open_


@pytest.fixture
def rows(batch: Batch) -> Batch:
    """The batch of the learner's tests, with tokens that the model may sample."""
    return batch.with_(tokens=batch.tokens + 6)


def ready(learner: Learner, batch: Batch) -> Batch:
    return learner.advantage(learner.annotate(batch))


def weights(policy) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in policy.bare_module.named_parameters()}


# -- recipes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, r"gae needs values: add `critic: \{\}`"),
        ({"critic": {}} | SHARED, "two sources of values"),
        ({"advantage": "grpo", "critic": {}}, "nothing in this recipe reads its values"),
        (SHARED | {"modifiers": []}, "nothing trains: add the modifier `value`"),
        ({"policy": {"type": "causal_lm", "head": "value"}}, "value cannot write answers"),
        ({"critic": {"policy": "causal_lm"}}, r"critic\.policy\.head: must be value, is lm"),
        (
            {"critic": {"policy": {"type": "causal_lm", "head": "value", "value_at": "after"}}},
            r"critic\.policy\.value_at.*set before",
        ),
        ({"critic": {"loss": "ppo_clip"}}, r"critic\.loss: ppo_clip does not train values"),
        ({"critic": {}, "loss": "value_clip"}, r"loss: value_clip trains a critic.*critic\.loss"),
        ({"critic": {"learner": {"minibatches": 3}}}, r"critic\.learner\.minibatches: 3 does not"),
        ({"critic": {"warmup_steps": -1}}, "greater than or equal to 0"),
        ({"critic": {"warm_up": 1}}, "warm_up"),
        (
            {"modifiers": [{"type": "value"}], "advantage": "grpo"},
            r"value needs values: add `critic: \{\}`",
        ),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        recipe_of(**fields)


def test_the_critic_is_the_policys_network_with_another_head() -> None:
    policy = {"type": "causal_lm", "packing": "flat", "lora": {"rank": 4}}
    recipe = recipe_of(policy=policy, critic={})
    network = recipe.critic_policy
    assert network is not None
    assert (network.head, network.packing, network.lora) == ("value", "flat", recipe.policy.lora)
    assert recipe.policy.head == "lm"
    own = recipe_of(critic={"policy": {"type": "causal_lm", "head": "value"}}).critic_policy
    assert own is not None
    assert own.lora is None
    assert recipe_of(**SHARED).critic_policy is None


# -- values, returns and updates -----------------------------------------------------------


@pytest.mark.parametrize("kind", [SEPARATE, SHARED], ids=["separate", "shared"])
async def test_values_before_the_update_make_advantages_and_returns(kind, opened, rows) -> None:
    async with opened(**kind) as learner:
        first = ready(learner, rows)
        assert not first.values.any()  # a new head says 0: returns are the rewards to go
        total = rows.rewards.sum(-1, keepdim=True).expand_as(rows.rewards)
        gae = learner.recipe.advantage
        alone = gae.model_copy(update={"lam_critic": 1.0, "whiten": False})
        torch.testing.assert_close(alone.returns(first), total * rows.mask)
        learner.update(first, 1)
        second = ready(learner, rows)
        assert second.values[rows.mask].all()
        assert not second.values[~rows.mask].any()
        assert not torch.allclose(second.returns, first.returns)


@pytest.mark.parametrize("kind", [SEPARATE, SHARED], ids=["separate", "shared"])
async def test_the_report(kind, opened, rows) -> None:
    async with opened(**kind) as learner:
        learner.update(ready(learner, rows), 1)
        batch = ready(learner, rows)
        report = learner.update(batch, 2)
    mask = rows.mask
    values, returns = batch.values[mask].double(), batch.returns[mask].double()
    assert report["critic/value_mean"] == pytest.approx(values.mean().item())
    assert report["critic/return_mean"] == pytest.approx(returns.mean().item())
    explained = 1 - (returns - values).var() / returns.var()
    assert report["critic/explained_variance"] == pytest.approx(explained.item())
    where = "critic" if kind is SEPARATE else "train"
    error = ((values - returns) ** 2).mean().item()
    assert report[f"{where}/value_error"] == pytest.approx(error, rel=1e-4)
    assert report[f"{where}/grad_norm"] > 0
    assert report["train/grad_norm"] > 0
    if kind is SEPARATE:
        assert report["critic/loss"] == pytest.approx(error / 2, rel=1e-4)
        assert report["critic/lr"] == 1e-3
        assert "critic/surrogate" not in report


async def test_a_critic_learns_what_it_is_shown(opened, rows) -> None:
    critic = {"learner": {"lr": 5e-3, "epochs": 10}, "loss": {"type": "value_clip", "clip": None}}
    gae = {"type": "gae", "lam_critic": 1.0}
    async with opened(critic=critic, advantage=gae) as learner:
        reports = [learner.update(ready(learner, rows), step) for step in range(1, 8)]
    assert reports[0]["critic/explained_variance"] == 0  # it said 0 everywhere
    assert reports[-1]["critic/explained_variance"] > 0.9


@pytest.mark.parametrize("kind", [SEPARATE, SHARED], ids=["separate", "shared"])
@pytest.mark.parametrize("budget", [1, 20])
async def test_micro_batches_change_nothing(budget, kind, opened, rows) -> None:
    """Two steps: in the second one values are not 0. Rows without signal teach the critic too."""
    found = []
    for tokens in (budget, 10**6):
        sized = {"learner": {"lr": 1e-2, "eps": 1e-3, "token_budget": tokens}}
        fields = kind | sized
        if kind is SEPARATE:
            fields |= {"critic": sized}
        async with opened(**fields) as learner:
            reports = [learner.update(ready(learner, rows), step) for step in (1, 2)]
            models = [learner.policy] + ([learner.critic.policy] if learner.critic else [])
            found.append((reports, [weights(model) for model in models]))
    (small, one), (large, other) = found
    for report, expected in zip(small, large, strict=True):
        assert report == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for mine, theirs in zip(one, other, strict=True):
        for name, values in theirs.items():
            torch.testing.assert_close(mine[name], values, rtol=1e-4, atol=1e-6, msg=name)


async def test_the_policy_is_untouched_until_the_critic_is_warm(opened, rows) -> None:
    """Bit for bit; then its own warm-up and schedule begin at their first step."""
    learning = {"lr": 1e-3, "warmup_steps": 4, "schedule": "linear"}
    warm = SEPARATE["critic"] | {"warmup_steps": 3}
    async with opened(critic=warm, learner=learning) as learner:
        before, judge = weights(learner.policy), weights(learner.critic.policy)
        for step in (1, 2, 3):
            report = learner.update(ready(learner, rows), step)
            assert "train/loss" not in report
            assert "train/lr" not in report
            assert report["train/active_rows"] > 0
            assert report["critic/loss"] > 0
        after = weights(learner.policy)
        assert all(torch.equal(after[name], values) for name, values in before.items())
        moved = weights(learner.critic.policy)
        assert any(not torch.equal(moved[name], values) for name, values in judge.items())
        assert not learner.optimizer.state_dict()["state"]
        report = learner.update(ready(learner, rows), 4)
        assert report["train/lr"] == pytest.approx(1e-3 / 4)
        assert any(not torch.equal(weights(learner.policy)[n], v) for n, v in before.items())
        last = learner.update(ready(learner, rows), 10)["train/lr"]
    plain = recipe_of(critic=SEPARATE["critic"], learner=learning, steps=7)
    assert policy_job(plain).steps == 7
    async with opened(critic=SEPARATE["critic"], learner=learning, steps=7) as learner:
        assert learner.update(ready(learner, rows), 7)["train/lr"] == last


async def test_a_shared_trunk_learns_from_both(opened, rows) -> None:
    """Without any advantage the trunk still follows the values."""
    async with opened(**SHARED) as learner:
        learner.update(ready(learner, rows), 1)  # a head of 0 gives the trunk no gradient
        batch = ready(learner, rows)
        before = weights(learner.policy)
        learner.update(batch.with_(advantages=torch.zeros_like(batch.advantages)), 2)
        after = weights(learner.policy)
    moved = {name for name, values in before.items() if not torch.equal(after[name], values)}
    assert "value_head.weight" in moved
    assert any(".layers.0." in name for name in moved)


# -- checkpoints ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SEPARATE, SHARED], ids=["separate", "shared"])
async def test_a_restored_learner_goes_on_alike(kind, opened, rows, tmp_path) -> None:
    async with opened(**kind) as learner:
        learner.update(ready(learner, rows), 1)
        torch.save(learner.state_dict(), tmp_path / "state.pt")
        policy = weights(learner.policy)
        expected = learner.update(ready(learner, rows), 2)
    async with opened(**kind) as learner:
        named = dict(learner.policy.bare_module.named_parameters())
        with torch.no_grad():
            for name, values in policy.items():
                named[name].copy_(values)
        learner.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=False))
        assert learner.update(ready(learner, rows), 2) == expected


async def test_another_critic_is_refused(opened, rows) -> None:
    async with opened(**SEPARATE) as learner:
        state = learner.state_dict()
    async with opened(advantage="grpo") as learner:
        bare = learner.state_dict()
        with pytest.raises(CheckpointError, match="has a critic and this recipe none"):
            learner.load_state_dict(state)
    async with opened(**SEPARATE) as learner:
        with pytest.raises(CheckpointError, match="has no critic and this recipe one"):
            learner.load_state_dict(bare)
        state["critic"]["weights"]["value_head.weight"] = torch.zeros(1, 7)
        with pytest.raises(CheckpointError, match=r"'value_head\.weight' \(critic\.learner\)"):
            learner.load_state_dict(state)
        del state["critic"]["weights"]["value_head.bias"]
        with pytest.raises(CheckpointError, match=r"'value_head\.bias'"):
            learner.load_state_dict(state)
