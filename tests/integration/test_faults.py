"""Whatever a reward does, the run goes on; whatever is wrong with the input is said in a line."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.cli import main
from trainer.errors import NoLearningSignal, RewardFaults
from trainer.loop import train
from trainer.yaml import load_recipe

RECIPE = """
name: run
steps: 2
threads: 1
model: {type: tiny_text, hidden: 24, intermediate: 32, layers: 1}
prompts: {type: synthetic/arithmetic, holdout: 2}
rollouts: {groups_per_step: 2, group_size: 4, sampling: {max_tokens: 4}}
reward: {function: hostile:reward}
scoring: {deadline: 1.0, fault_budget: 1.0}
learner: {lr: 1.0e-3, no_signal_steps: 2}
monitors: [jsonl]
"""

HOSTILE = """
import math, os, sys, time

def reward(completions, completion_ids, **columns):
    print("noise on standard output")
    {body}
    return [float(sum(ids) % 5) for ids in completion_ids]
"""

BODIES = {
    "raises": "raise ValueError('no such answer')",
    "sleeps for ever": "time.sleep(1e6)",
    "loops for ever": "while True: pass",
    "returns NaN": "return [math.nan] * len(completions)",
    "returns the wrong length": "return [1.0]",
    "calls sys.exit": "sys.exit(3)",
    "dies": "os._exit(9)",
}
STATUSES = {
    "raises": "raised",
    "sleeps for ever": "timeout",
    "loops for ever": "timeout",
    "returns NaN": "not_finite",
    "returns the wrong length": "wrong_length",
    "calls sys.exit": "crashed",
    "dies": "crashed",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "hostile.py").write_text(HOSTILE.format(body="pass"))
    yield tmp_path
    sys.modules.pop("hostile", None)


def _train(folder: Path, *overrides: str) -> list[dict]:
    (recipe,) = load_recipe(folder / "recipe.yaml", overrides=overrides)
    try:
        asyncio.run(train(recipe))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return _rows(folder / "runs" / "run" / "metrics.jsonl")


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("fault", BODIES)
def test_one_group_fails_and_the_run_goes_on(fault, folder):
    body = f"if columns['level'][0] == 0:\n        {BODIES[fault]}"
    (folder / "hostile.py").write_text(HOSTILE.format(body=body))
    rows = _train(folder, "steps=3", "rollouts.groups_per_step=6")
    assert [row["step"] for row in rows] == [1, 2, 3]
    faults = [row.get(f"score/{STATUSES[fault]}", 0) for row in rows]
    assert sum(faults) > 0
    assert sum(faults) == sum(row["score/faults"] for row in rows)
    logged = _rows(folder / "runs" / "run" / "rollouts.jsonl")
    failed = [row for row in logged if row["reward"] is None]
    assert len(failed) == sum(faults)
    assert all(row["scored"] == STATUSES[fault] for row in failed)
    assert any(row["train/active_rows"] > 0 for row in rows), "the others were trained on"


def test_over_the_budget_the_run_stops_with_the_report(folder):
    (folder / "hostile.py").write_text(HOSTILE.format(body=BODIES["raises"]))
    with pytest.raises(RewardFaults, match=r"held-out prompts .* no such answer"):
        _train(folder, "scoring.fault_budget=0.1", "steps=40")
    overrides = ("steps=40", "prompts.holdout=0", "learner.no_signal_steps=0")
    with pytest.raises(RewardFaults) as caught:
        _train(folder, "scoring.fault_budget=0.1", *overrides)
    assert "no such answer" in str(caught.value)
    assert "fault_budget" in str(caught.value)


def test_no_signal_is_an_error_with_the_histogram(folder):
    (folder / "hostile.py").write_text(HOSTILE.format(body="return [1.0] * len(completions)"))
    with pytest.raises(NoLearningSignal, match="every reward 1 4"):
        _train(folder, "steps=9")


# -- bad input: one clear message each --------------------------------------------------------


def _fails(capsys: pytest.CaptureFixture, *words: str) -> str:
    assert main(["train", "recipe.yaml", *words]) != 0
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_bad_yaml(folder, capsys):
    (folder / "recipe.yaml").write_text(RECIPE + "name: again\n")
    error = _fails(capsys)
    assert "recipe.yaml:12" in error
    assert "name" in error
    (folder / "recipe.yaml").write_text(RECIPE.replace("max_tokens: 4", "max_token: 4"))
    error = _fails(capsys)
    assert "rollouts.sampling.max_token" in error
    assert "max_tokens" in error


def test_missing_column(folder, capsys):
    (folder / "data.jsonl").write_text('{"qustion": "1+1=", "answer": "2"}\n')
    error = _fails(capsys, "prompts={type: files, path: data.jsonl}")
    assert "qustion" in error
    assert "question" in error


def test_missing_image(folder, capsys):
    row = {"question": "what is it ?", "images": ["gone.png"], "answer": "red"}
    (folder / "data.jsonl").write_text((json.dumps(row) + "\n") * 4)
    error = _fails(
        capsys, "model=tiny_vision", "policy=vision_lm", "prompts={type: files, path: data.jsonl}"
    )
    assert "gone.png" in error
    assert "data.jsonl" in error


def test_empty_dataset(folder, capsys):
    (folder / "data.jsonl").write_text("")
    error = _fails(capsys, "prompts={type: files, path: data.jsonl}")
    assert "data.jsonl" in error


def test_unwritable_run_folder(folder, capsys):
    (folder / "taken").write_text("a file, not a folder")
    error = _fails(capsys, "output=taken")
    assert "taken" in error
    assert "output" in error


def test_another_recipe_in_the_same_folder_is_refused_and_nothing_is_lost(folder, capsys):
    assert main(["train", "recipe.yaml"]) == 0
    before = (folder / "runs" / "run" / "metrics.jsonl").read_bytes()
    error = _fails(capsys, "learner.lr=0.5")
    assert "learner.lr: 0.001 -> 0.5" in error
    assert "--fresh" in error
    assert (folder / "runs" / "run" / "metrics.jsonl").read_bytes() == before
    assert main(["train", "recipe.yaml", "steps=3"]) == 0, "a longer run is the same run"
    assert (folder / "runs" / "run" / "metrics.jsonl").read_bytes().startswith(before)


@pytest.mark.slow
def test_a_full_disk_keeps_the_checkpoint_before(folder):
    """A real file system of 1 MiB, in a mount namespace of its own."""
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if shutil.which("unshare") is None or subprocess.run(probe, check=False).returncode:
        pytest.skip("this machine allows no mount namespace")
    (folder / "runs").mkdir()
    script = (
        "mount -t tmpfs -o size=600k tmpfs runs && "
        f"{sys.executable} -m trainer train recipe.yaml steps=9 checkpoint.every=1 "
        "checkpoint.keep=9; code=$?; cp -r runs kept; exit $code"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{root}:{folder}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert result.returncode == 1
    assert "CheckpointError" in result.stderr
    assert "disk is full" in result.stderr
    assert "Traceback" not in result.stderr
    shutil.move(folder / "kept", folder / "runs" / "moved")
    kept = sorted((folder / "runs" / "moved").rglob("manifest.json"))
    assert kept, "no earlier checkpoint was left"
    shutil.move(folder / "runs" / "moved" / "run", folder / "runs" / "run")
    assert main(["train", "recipe.yaml", "steps=9", "checkpoint.every=1", "checkpoint.keep=9"]) == 0
    steps = [row["step"] for row in _rows(folder / "runs" / "run" / "metrics.jsonl")]
    assert steps == list(range(1, 10))
