"""Asynchronous runs that are killed, and asynchronous runs of several processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEPS, GROUPS, SIZE = 12, 2, 4
RECIPE = f"""
name: run
steps: {STEPS}
threads: 1
model: {{type: tiny_text, hidden: 24, intermediate: 32, layers: 1}}
prompts: {{type: synthetic/arithmetic, holdout: 2}}
rollouts: {{groups_per_step: {GROUPS}, group_size: {SIZE}, max_lag: 1, sampling: {{max_tokens: 6}}}}
reward: {{type: "uneven:Uneven"}}
modifiers: [{{type: tis}}]
learner: {{lr: 1.0e-3}}
checkpoint: {{every: 1, keep: 20}}
monitors: [jsonl]
"""

# Odd prompts take long to score, so at any moment some groups are ready and some are not.
UNEVEN = """
import asyncio

from trainer.rewards.base import Reward
from trainer.types import Score


class Uneven(Reward):
    async def score(self, group, context):
        await asyncio.sleep(0.3 if group.prompt.serial % 2 else 0.0)
        return [Score(-abs(sum(r.completion) % 13 - 7) / 7) for r in group.rollouts]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "uneven.py").write_text(UNEVEN)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def test_killed_at_lag_1_every_prompt_is_trained_once(folder: Path, cohort, finished) -> None:
    run = folder / "runs" / "run"
    process = cohort("train", "recipe.yaml")
    try:
        _wait_for_steps(run / "metrics.jsonl", 6, process)
    finally:
        process.kill()
        process.communicate()
    step, state = _rewind(run / "checkpoints")
    ready = {group.prompt.serial: group for group in state["ready"]}
    waiting = [prompt.serial for prompt in state["in_flight"]]
    assert sorted([*ready, *waiting]) == [step * GROUPS, step * GROUPS + 1]

    code, output = finished("train", "recipe.yaml")
    assert code == 0, output
    rows = _rows(run / "rollouts.jsonl")
    trained = Counter((row["group"], row["member"]) for row in rows)
    expected = {(serial, member) for serial in range(STEPS * GROUPS) for member in range(SIZE)}
    assert trained == Counter(expected)
    for row in rows:
        assert row["step"] == row["group"] // GROUPS + 1
        if group := ready.get(row["group"]):  # kept as it was, not played again
            assert row["reply"] == group.rollouts[row["member"]].reply
            assert row["reward"] == group.rollouts[row["member"]].score.value
    metrics = _rows(run / "metrics.jsonl")
    assert [row["step"] for row in metrics] == list(range(1, STEPS + 1))
    assert max(row["rollout/lag_max"] for row in metrics) == 1


PROCESSES = {
    "tis over all processes": [
        "modifiers.0={type: tis, batch_normalize: true, off_policy_delta: 0.01}",
        "advantage={type: grpo, scale_by_std: batch}",
        "learner.minibatches=2",
    ],
    "decoupled, groups dropped on one process": [
        "modifiers=[]",
        "loss=decoupled_ppo",
        "learner.epochs=2",
        "rollouts.filters=[{type: 'rank_1:DropsOnRank1'}]",
        "evaluation.every=2",
    ],
}

RANK_1 = """
import os
from trainer.filters.base import Filter

class DropsOnRank1(Filter):
    def why_drop(self, group):
        unlucky = os.environ.get("RANK") == "1" and group.prompt.serial % 3 == 0
        return "unlucky" if unlucky else None
"""


@pytest.mark.parametrize("case", list(PROCESSES))
def test_two_processes_at_lag_1_meet_in_every_collective(folder: Path, case: str) -> None:
    (folder / "rank_1.py").write_text(RANK_1)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", "2", "-m", "trainer", "train", "recipe.yaml", "steps=6"),
            *("rollouts.groups_per_step=4", "checkpoint.every=2", *PROCESSES[case]),
        ],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    metrics = _rows(folder / "runs" / "run" / "metrics.jsonl")
    assert len(metrics) == 6
    assert max(row["rollout/lag_max"] for row in metrics) == 1
    assert all(row["rollout/count"] == 4 * SIZE for row in metrics)
    trained = Counter((r["group"], r["member"]) for r in _rows(folder / "runs/run/rollouts.jsonl"))
    assert set(trained.values()) == {1}
    assert (sum(row["group/dropped"] for row in metrics) > 0) == ("dropped" in case)


def _rewind(checkpoints: Path) -> tuple[int, dict[str, Any]]:
    """Step and buffer of the newest checkpoint that holds a ready group and one in flight; newer
    ones are removed, as if the kill had come before them."""
    for path in sorted(checkpoints.glob("step_*"), reverse=True):
        state = torch.load(path / "rank_00000.pt", weights_only=False)["buffer"]
        if state["ready"] and state["in_flight"]:
            return int(path.name.removeprefix("step_")), state
        shutil.rmtree(path)
    pytest.fail("no checkpoint caught a group in flight next to a ready one")


def _wait_for_steps(path: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and len(_rows(path)) >= count:
            return
        time.sleep(0.005)
    pytest.fail(f"the run ended or stalled before step {count}: {process.stdout.read()}")


def _rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
