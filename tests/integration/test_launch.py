"""The launchers' view: two processes are one run; an error on one ends all, its traceback last."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]

RECIPE = """
name: launched
output: {output}
steps: 4
model: {{type: tiny_text, hidden: 32, intermediate: 64, layers: 1, heads: 2}}
prompts: {{type: synthetic/arithmetic, holdout: 4}}
rollouts:
  groups_per_step: 4
  group_size: 2
  sampling: {{max_tokens: 4}}
  filters: [{{type: "breaks:BreaksOnRankOne"}}]
reward: text/exact
learner: {{lr: 1.0e-3, no_signal_steps: 0}}
monitors: [console, jsonl]
"""

BREAKS = """
import os

def varied(completion_ids, **columns):
    return [float(sum(ids) % 7) for ids in completion_ids]

from trainer.errors import DataError
from trainer.filters.base import Filter


class BreaksOnRankOne(Filter):
    meant: bool = False

    def why_drop(self, group):
        if os.environ.get("RANK") == "1" and group.prompt.serial >= 4:
            raise DataError("row 7 is broken") if self.meant else ZeroDivisionError("on rank 1")
        return None
"""


@pytest.fixture
def launch(tmp_path):
    """`launch(processes, *overrides)`: the recipe above through torchrun."""
    (tmp_path / "breaks.py").write_text(BREAKS)
    recipe = tmp_path / "launched.yaml"
    recipe.write_text(RECIPE.format(output=tmp_path / "runs"))

    def run(processes: int, *overrides: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        return subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *("--nproc_per_node", str(processes), "-m", "trainer", "train", str(recipe)),
                *overrides,
            ],
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_an_exception_on_one_rank_ends_both_with_its_traceback_last(launch):
    done = launch(2)
    assert done.returncode != 0
    assert "[rank 1] ZeroDivisionError: on rank 1" in done.stderr
    last = done.stderr[done.stderr.rindex("Root Cause") :]
    assert "rank      : 1" in last
    assert "breaks.py" in last
    assert "ZeroDivisionError: on rank 1" in last


def test_an_error_meant_for_people_is_one_line_on_its_rank(launch):
    done = launch(2, "rollouts.filters.0.meant=true")
    assert done.returncode != 0
    assert "[rank 1] DataError: row 7 is broken\n" in done.stderr
    assert "[rank 1] Traceback" not in done.stderr


def test_two_processes_are_the_same_run_as_one(launch, tmp_path):
    runs = {}
    for processes in (1, 2):
        output = tmp_path / f"runs{processes}"
        varied = ("reward={function: breaks:varied}", "rollouts.filters=[]")
        done = launch(processes, *varied, "learner.minibatches=2", f"output={output}")
        assert done.returncode == 0, done.stderr
        folder = output / "launched"
        rows = (folder / "metrics.jsonl").read_text().splitlines()
        weights = load_file(folder / "checkpoints" / "step_000004" / "policy.safetensors")
        runs[processes] = [json.loads(row) for row in rows], weights
    (one, weights), (two, same) = runs[1], runs[2]
    assert len(one) == len(two) == 4
    for row, other in zip(one, two, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            assert value == pytest.approx(other[name], rel=1e-4, abs=1e-5), name
        assert row["train/grad_norm"] > 0
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, same[name], rtol=1e-4, atol=1e-5)
