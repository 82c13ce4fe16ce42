"""Run by test_two_processes_prm.py: a reward model that learns, on however many processes.

`python prm_updates.py OUT`, or the same through torchrun, writes OUT/rank_<r>.pt with
{case: {"rewards": {rollout: [...]}, "report", "weights"}}.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import torch
from updates import MODEL, RETURNS, own_batch

from trainer.config import Recipe
from trainer.context import Context
from trainer.distributed import Distributed
from trainer.learner import policy_job
from trainer.trainees import Trainees

CASES: dict[str, dict[str, Any]] = {
    "after": {},
    "before": {"update": "before"},
    "dpo": {"loss": "implicit/dpo"},
    "dpo_mean": {"loss": {"type": "implicit/dpo", "pairs": "mean"}, "update": "reverse"},
    "nca": {"loss": "implicit/nca", "update": "reverse"},
    "kto": {"loss": "implicit/kto"},
    "whole": {"granularity": "whole", "reference": "policy"},
}


async def updated(distributed: Distributed, case: dict[str, Any]) -> dict[str, Any]:
    learner = {"lr": 1e-3, "eps": 1e-3, "minibatches": 2, "token_budget": 32}
    recipe = Recipe(
        name="updates",
        steps=3,
        model=MODEL,
        prompts="synthetic/arithmetic",
        policy={"type": "causal_lm", "dtype": "float32"},
        rollouts={"groups_per_step": 4},
        reward={
            "type": "model/implicit_prm",
            "outcome": "text/exact",
            "learner": learner,
            **case,
        },
    )
    context = Context(
        folder=Path(),
        seed=0,
        total_steps=3,
        device="cpu",
        rank=distributed.rank,
        world=distributed.world,
        model=MODEL,
        renderer=MODEL.renderer(),
        policy=recipe.policy,
        trainees=Trainees(policy_job(recipe), distributed),
        gather=distributed.gather_objects,
    )
    batch = own_batch(distributed.rank, distributed.world, RETURNS)
    batch = batch.with_(parts={"outcome": batch.rewards.sum(-1)})
    reports: list[dict[str, float]] = []
    async with recipe.reward.open(context):
        for step in (1, 2, 3):
            learned, report = await recipe.reward.learn([], batch, step)
            reports.append(report)
        weights = recipe.reward.state_dict()["prm"]["weights"]
    found = learned.extra["process_rewards"]
    rows = [found[row][batch.mask[row]] for row in range(len(found))]
    return {"rewards": rows, "report": reports, "weights": weights}


def main(folder: Path) -> None:
    distributed = Distributed.start(cpu=True)
    found = {name: asyncio.run(updated(distributed, case)) for name, case in CASES.items()}
    torch.save(found, folder / f"rank_{distributed.rank}.pt")
    distributed.barrier("results")
    distributed.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
