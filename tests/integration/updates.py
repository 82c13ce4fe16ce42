"""Run by test_two_processes.py: the same updates on however many processes were launched.

`python updates.py OUT` or `torchrun --nproc_per_node 2 updates.py OUT` writes OUT/rank_<r>.pt with
{case: {"report", "gradients", "weights"}}. With a second word `fail`, rank 1 raises on the way.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import torch

from trainer.config import Recipe
from trainer.context import Context
from trainer.distributed import Distributed
from trainer.learner import Learner, policy_job
from trainer.models.tiny_text import TinyText
from trainer.trainees import Trainees
from trainer.types import Batch

MODEL = TinyText(hidden=32, heads=2, intermediate=48)
GROUPS, SIZE, WIDTH = 4, 3, 24
PROMPTS = (3, 9, 5, 2)
REPLIES = (4, 2, 3, 15, 9, 12, 1, 5, 2, 7, 20, 11)
RETURNS = (1.0, 0.0, 0.5, 0.0, 0.0, 1.0, 0.3, 0.3, 1.0, 1.0, 0.0, 0.2)
EVEN_ONLY = (1.0, 0.0, 0.5, 0.3, 0.3, 0.3, 0.3, 0.3, 1.0, 0.7, 0.7, 0.7)
GAE = {"type": "gae", "lam": 0.9}
CRITIC = {"learner": {"lr": 1e-3, "eps": 1e-3, "epochs": 2, "token_budget": 32}}
CASES: dict[str, dict[str, Any]] = {
    "token_mean": {},
    "token_mean_local": {"loss": {"aggregation": "token_mean_local", "local_rows": SIZE}},
    "seq_mean_token_mean": {"loss": {"aggregation": "seq_mean_token_mean"}},
    "dr_grpo": {"loss": {"aggregation": "seq_mean_token_sum_norm"}, "advantage": "dr_grpo"},
    "batch_deviation": {"advantage": {"type": "grpo", "scale_by_std": "batch"}},
    "kl_everywhere": {
        "modifiers": [
            {"type": "kl", "coef": 0.2},
            {"type": "kl", "coef": 0.1, "where": "reward", "estimator": "k1"},
        ]
    },
    "one_micro_batch": {"budget": 10**6},
    "nothing_on_rank_1": {"returns": EVEN_ONLY},
    "epochs": {"epochs": 3},
    "clip_cov": {
        "loss": {"type": "clip_cov", "share": 0.1, "cov_low": 0.0, "cov_high": 9.0},
        "epochs": 2,
    },
    "kl_cov": {"loss": {"type": "kl_cov", "share": 0.1}, "epochs": 2},
    "sequences": {"loss": {"type": "gspo"}, "epochs": 2},
    "selections": {
        "epochs": 2,
        "modifiers": [
            {"type": "rejection", "level": "token", "high": 1.5},
            {"type": "token_entropy_mask", "low": 0.4, "renormalize": True},
            {"type": "positive_nll"},
            {"type": "adaptive_entropy", "coef": 0.1, "target": 9.0},
            {"type": "kl", "coef": 0.2, "target": 0.01, "horizon": 30},
        ],
    },
    "a_parameter_that_no_row_uses": {"unused": True},
    "critic": {"advantage": GAE, "critic": CRITIC},
    "critic_nothing_on_rank_1": {"advantage": GAE, "critic": CRITIC, "returns": EVEN_ONLY},
    "critic_warm_up": {"advantage": GAE, "critic": CRITIC | {"warmup_steps": 1}},
    "shared_trunk": {
        "advantage": GAE,
        "head": "both",
        "modifiers": [{"type": "value", "coef": 0.5}],
    },
}


class Reference:
    """Finds the actions a little less likely than the engine did."""

    def logprobs(self, batch: Batch, temperature: float, token_budget: int) -> torch.Tensor:
        return 1.1 * batch.sampled_logprobs


def own_batch(rank: int, world: int, returns: tuple[float, ...]) -> Batch:
    """Groups `rank`, `rank + world`, ... of a fixed set of four."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(6, 100, (GROUPS * SIZE, WIDTH + 8), generator=generator)
    logprobs = -4 - torch.rand(GROUPS * SIZE, WIDTH + 8, generator=generator)
    rows = [row for row in range(GROUPS * SIZE) if row // SIZE % world == rank]
    start = torch.tensor([PROMPTS[row // SIZE] for row in rows])
    length = start + torch.tensor([REPLIES[row] for row in rows])
    width = int(length.max())
    place = torch.arange(width)
    mask = (place >= start[:, None]) & (place < length[:, None])
    rewards = torch.zeros(len(rows), width)
    for number, row in enumerate(rows):
        rewards[number, length[number] - 1] = returns[row]
    return Batch(
        tokens=tokens[rows, :width] * (place < length[:, None]),
        mask=mask,
        length=length,
        turn=mask.long() - 1,
        version=mask.long() - 1,
        rewards=rewards,
        weight=torch.ones_like(rewards),
        group=torch.tensor([row // SIZE // world for row in rows]),
        rollout=torch.arange(len(rows)),
        sampled_logprobs=logprobs[rows, :width] * mask,
        inputs=({},) * len(rows),
    )


async def updated(distributed: Distributed, case: dict[str, Any], fail: bool) -> dict[str, Any]:
    """Two steps; the gradients are those of the first."""
    recipe = Recipe(
        name="updates",
        steps=2,
        model=MODEL,
        prompts="synthetic/arithmetic",
        policy={"type": "causal_lm", "dtype": "float32", "head": case.get("head", "lm")},
        learner={
            "lr": 1e-3,
            # A key's bias has gradient 0 but for rounding, which a small eps would blow up to 1.
            "eps": 1e-3,
            "epochs": case.get("epochs", 1),
            "token_budget": case.get("budget", 32),
        },
        advantage=case.get("advantage", "grpo"),
        loss={"type": "ppo_clip", **case.get("loss", {})},
        modifiers=case.get("modifiers", []),
        critic=case.get("critic"),
    )
    context = Context(
        folder=Path(),
        seed=0,
        total_steps=2,
        device="cpu",
        rank=distributed.rank,
        world=distributed.world,
        model=MODEL,
        renderer=MODEL.renderer(),
    )
    policy = recipe.policy
    gradients: dict[str, torch.Tensor] = {}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(policy.open(context))
        critic = None
        if recipe.critic is not None and recipe.critic_policy is not None:
            judge, settings = recipe.critic_policy, recipe.critic
            await stack.enter_async_context(judge.open(context))
            trainees = Trainees(policy_job(recipe), distributed)
            critic = trainees(judge, settings.loss, settings.learner, "critic.learner")
        if case.get("unused"):
            policy.backbone.register_parameter("unused", torch.nn.Parameter(torch.ones(3)))
        learner = Learner(recipe, policy, Reference(), distributed, critic)

        def keep(*_: object) -> None:
            if not gradients:
                named = policy.bare_module.named_parameters()
                gradients.update({name: p.grad.clone() for name, p in named})

        learner.optimizer.optimizer.register_step_pre_hook(keep)
        batch = own_batch(distributed.rank, distributed.world, case.get("returns", RETURNS))
        reports = []
        for step in (1, 2):
            if fail and distributed.rank == 1:
                raise ValueError("broken on purpose")
            ready = learner.advantage(learner.annotate(batch))
            reports.append(learner.update(ready, step))
        models = [policy] if critic is None else [policy, critic.policy]
        weights = {
            f"{number}.{name}": p.detach().clone()
            for number, model in enumerate(models)
            for name, p in model.bare_module.named_parameters()
        }
    return {"report": reports, "gradients": gradients, "weights": weights}


def main(folder: Path, fail: bool) -> None:
    distributed = Distributed.start(cpu=True)
    found = {name: asyncio.run(updated(distributed, case, fail)) for name, case in CASES.items()}
    torch.save(found, folder / f"rank_{distributed.rank}.pt")
    distributed.barrier("results")
    distributed.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), fail=sys.argv[2:] == ["fail"])
