"""Trains while rollout workers are broken at random, and counts what got lost.

    python scripts/bench/soak.py recipes/async_text.yaml [key=value ...]
                                 [--steps 100] [--faults 20] [--workers 2] [--seed 0]

Faults come at random moments of random steps, from `--seed`, each to one vLLM server: `kill` -9 or
`freeze` one of its processes (its front end or its engine), `pause` one for five seconds, or let it
answer `garbage` (all ids banned: no token is left to sample). Prints how many were injected and
noticed, the prompts that were lost or trained twice (both must be 0), and the reward of the first
and the last tenth of the steps. Exit code 1 if a prompt was lost or trained twice, a step is
missing, or the reward did not rise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
from pydantic import PrivateAttr

from trainer.config import Recipe
from trainer.engines.vllm_server import VllmServer
from trainer.loop import train
from trainer.monitors.base import Monitor
from trainer.ops.member import Member, MemberFault
from trainer.run_folder import folder_of
from trainer.yaml import load_recipe

PATIENT = (
    "engine.health_every=5",
    "engine.health_deadline=30",
    "engine.stall_deadline=10",
    "engine.restarts=10",
    "engine.retries=50",
)
"""A frozen server is found within seconds, and the run outlives many faults in a row."""
KINDS = ("kill", "freeze", "pause", "garbage")
PAUSE_SECONDS = 5.0


@dataclass
class Faults:
    """Which step begins with how many faults, and what was done so far."""

    rng: random.Random
    due: Counter[int]
    vocabulary: int
    injected: list[str] = field(default_factory=list)
    noticed: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Saboteur(Monitor):
    """Gets the end of every step, as all monitors do; breaks something in the next one."""

    engine: VllmServer

    _faults: Faults = PrivateAttr()

    def plan(self, steps: int, count: int, seed: int, vocabulary: int) -> Faults:
        rng = random.Random(seed)
        self._faults = Faults(
            rng, Counter(rng.randrange(1, max(2, steps - 5)) for _ in range(count)), vocabulary
        )
        return self._faults

    def log(self, step: int, report: dict[str, Any], timing: dict[str, float]) -> None:
        faults = self._faults
        faults.noticed = len(self.engine.fleet.faults)
        missed = sum(n for due, n in faults.due.items() if due <= step) - len(faults.injected)
        print(
            f"step {step:4d}  reward {report.get('reward/mean', 0):.3f}  "
            f"{timing['time/step']:6.1f} s  faults {len(faults.injected)}",
            flush=True,
        )
        for _ in range(missed - len(faults.tasks)):
            delay = faults.rng.uniform(0, timing["time/step"])
            task = asyncio.create_task(self._strike(step, delay))
            faults.tasks.add(task)
            task.add_done_callback(faults.tasks.discard)

    async def _strike(self, step: int, delay: float) -> None:
        """Nothing, if no server is up at that moment: then the next step tries again."""
        await asyncio.sleep(delay)
        rng = self._faults.rng
        ready = [m for m in self.engine.fleet.ready if m.process is not None]
        if not ready:
            return
        member = rng.choice(ready)
        processes = psutil.Process(member.process.pid).children(recursive=True)
        if not processes:
            return
        victim = rng.choice(processes)
        kind = rng.choice(KINDS)
        line = f"step {step + 1}: {kind} {member.name}, {len(member.calls)} replies in the making"
        self._faults.injected.append(line)
        print(f"  {line}", flush=True)
        if kind == "garbage":
            await self._scramble(member)
            return
        with suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
            if kind == "pause":
                await asyncio.sleep(PAUSE_SECONDS)
                victim.send_signal(signal.SIGCONT)

    async def _scramble(self, member: Member) -> None:
        body = {"method": "cohort_ban", "args": [list(range(self._faults.vocabulary))]}
        with suppress(MemberFault):  # somebody else may have found it out before
            await member.control("/collective_rpc", body, deadline=60)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    server = f"{{type: vllm_server, workers: {arguments.workers}}}"
    engine = [f"engine={server}", *PATIENT]
    settings = [f"steps={arguments.steps}", "name=soak", "monitors=[jsonl]", *engine]
    (recipe,) = load_recipe(arguments.recipe, overrides=[*settings, *arguments.overrides])
    assert isinstance(recipe.engine, VllmServer)
    saboteur = Saboteur(engine=recipe.engine)
    vocabulary = recipe.model.config().get_text_config().vocab_size
    faults = saboteur.plan(arguments.steps, arguments.faults, arguments.seed, vocabulary)
    recipe = recipe.model_copy(update={"monitors": (*recipe.monitors, saboteur)})
    began = time.perf_counter()
    asyncio.run(train(recipe, fresh=True))
    return _verdict(recipe, faults, time.perf_counter() - began)


def _verdict(recipe: Recipe, faults: Faults, took: float) -> int:
    folder = folder_of(recipe)
    metrics = _rows(folder / "metrics.jsonl")
    rows = _rows(folder / "rollouts.jsonl")
    trained = Counter((row["group"], row["member"]) for row in rows)
    groups, size = recipe.rollouts.groups_per_step, recipe.rollouts.group_size
    expected = {(serial, m) for serial in range(recipe.steps * groups) for m in range(size)}
    lost, twice = expected - trained.keys(), [key for key, n in trained.items() if n > 1]
    rewards = [row["reward/mean"] for row in metrics]
    tenth = max(1, len(rewards) // 10)
    kinds = Counter(line.split()[2] for line in faults.injected)
    first, last = fmean(rewards[:tenth]), fmean(rewards[-tenth:])
    print(f"steps           {len(metrics)} of {recipe.steps} in {took:.0f} s")
    print(f"faults          {len(faults.injected)} injected ({_counts(kinds)})")
    print(f"noticed         {faults.noticed} servers taken out")
    print(f"lost            {len(lost)} of {len(expected)} rollouts")
    print(f"trained twice   {len(twice)}")
    print(f"aborted         {sum(row['status'] == 'aborted' for row in rows)}")
    print(f"largest lag     {max(row['rollout/lag_max'] for row in metrics)}")
    print(f"reward          {first:.3f} -> {last:.3f}")
    return int(bool(lost or twice) or len(metrics) < recipe.steps or last <= first)


def _counts(kinds: Counter[str]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) or "none"


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main())
