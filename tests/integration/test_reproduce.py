"""`cohort reproduce` end to end: killed half-way, continued, one arm broken."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from trainer.cli import main
from trainer.monitors.base import read_rows

RECIPE = """
name: demo
description: d
steps: 10
threads: 1
model: {type: tiny_text, hidden: 24, intermediate: 32, layers: 1}
prompts: {type: synthetic/arithmetic, holdout: 2}
rollouts: {groups_per_step: 2, group_size: 4, sampling: {max_tokens: 4}}
reward: {function: 'rewards_of_demo:quick'}
learner: {lr: 1.0e-3, no_signal_steps: 0}
checkpoint: {every: 2}
claim:
  says: a quick reward is as good as a slow one
  arms:
    quick:
    slow: {reward: {function: 'rewards_of_demo:slow'}}
    broken: {reward: {function: 'rewards_of_demo:broken'}, scoring.fault_budget: 0}
  seeds: [0]
  measure: {metric: reward/mean, take: area, holds: mean, against: [slow]}
"""
REWARDS = """
import time

def quick(completion_ids, **columns):
    return [float(sum(ids) % 5) for ids in completion_ids]

def slow(completion_ids, **columns):
    time.sleep(0.2)
    return quick(completion_ids)

def broken(completion_ids, **columns):
    raise ValueError("no such answer")
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_reproduction_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo.yaml").write_text(RECIPE)
    (tmp_path / "rewards_of_demo.py").write_text(REWARDS)
    folder = tmp_path / "runs" / "reproduce" / "demo"
    command = [sys.executable, "-m", "trainer", "reproduce", "demo.yaml"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            _until(lambda: len(_steps(folder / "slow_seed0")) >= 4, process)
        finally:
            process.kill()
    _until_still(folder / "slow_seed0" / "metrics.jsonl")
    assert _steps(folder / "quick_seed0") == list(range(1, 11))
    assert max(_steps(folder / "slow_seed0")) < 10, "the arm ended with its parent"
    assert not (folder / "table.md").exists()
    kept = (folder / "quick_seed0" / "metrics.jsonl").stat().st_mtime_ns

    assert main(["reproduce", "demo.yaml"]) == 1, "one arm is broken"
    out, error = capsys.readouterr()
    assert "quick_seed0: was finished" in out
    assert "slow_seed0: continues" in out
    assert "slow_seed0: done" in out
    assert error.rstrip().splitlines()[-1].startswith("RewardFaults: ")
    assert "Traceback (most recent call last)" in error
    assert (folder / "quick_seed0" / "metrics.jsonl").stat().st_mtime_ns == kept
    assert _steps(folder / "slow_seed0") == list(range(1, 11))

    results = json.loads((folder / "results.json").read_text())
    numbers = results["numbers"]["reward/mean, area"]
    assert numbers["slow"] == numbers["quick"], "the same rewards: the same run, though cut in two"
    assert numbers["broken"] == {}
    assert results["verdict"] == "does not show"
    assert results["comparisons"][0]["why"] == "equal"
    assert len(results["problems"]) == 1
    table = (folder / "table.md").read_text()
    assert "**The claim does not show here.**" in table
    assert "| broken | failed | - |" in table
    with Image.open(folder / "curves.png") as picture:
        assert picture.width > 1000


def _steps(folder: Path) -> list[int]:
    return [row["step"] for row in read_rows(folder / "metrics.jsonl")]


def _until(condition, process: subprocess.Popen) -> None:
    end = time.monotonic() + 400
    while not condition():
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < end
        time.sleep(0.05)


def _until_still(path: Path) -> None:
    """Waits until the file has not grown for a second."""
    size = -1
    while size != path.stat().st_size:
        size = path.stat().st_size
        time.sleep(1.0)
