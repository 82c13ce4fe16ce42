"""Two real steps with every advantage that needs no critic, with what it needs around it."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import pytest

from trainer.stages import run_stages
from trainer.yaml import load_recipe

ROOT = Path(__file__).parents[2]
STEPS = [
    "reward={type: process/monte_carlo, reward: {type: text/exact, extract: tag}, samples: 2,"
    " max_tokens: 14, splitter: {by: regex, pattern: '</think>'}}"
]
PAV = [STEPS[0].replace("reward=", "reward={type: process/pav, reward: ") + "}"]
KL = "modifiers=[{type: kl, where: reward, estimator: k1, coef: 0.01}]"
CASES = {
    "reinforce_pp": [KL],
    "{type: reinforce_pp, baseline: group}": [],
    "remax": ["rollouts.agent=greedy_baseline", "rollouts.group_size=1", KL],
    "{type: remax, form: official}": ["rollouts.agent=greedy_baseline", KL],
    "{type: raft, keep: best}": ["loss=nll"],
    "{type: raft, renormalise: true}": [],
    "reinforce_rej": ["rollouts.filters=[{type: accuracy_band, low: 0, high: 1}]"],
    "bnpo": ["modifiers=[mask_truncated]", "rollouts.sampling.max_tokens=13"],
    "{type: grpo_process, outcome_weight: 1}": STEPS,
    "min_form": PAV,
    "{type: prl, step_length: 4}": [],
    "{type: turn_level, compare: same_turn, answer_weight: 0.5}": [],
}


@pytest.mark.parametrize("advantage", CASES)
def test_two_steps(advantage, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    recipes = load_recipe(
        ROOT / "recipes/quickstart_text.yaml",
        overrides=(
            f"output={tmp_path}",
            "steps=2",
            "rollouts.groups_per_step=4",
            "rollouts.group_size=4",
            "evaluation.limit=2",
            "evaluation.every=0",
            "monitors=[jsonl]",
            f"advantage={advantage}",
            *CASES[advantage],
        ),
    )
    folder = asyncio.run(run_stages(recipes))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(math.isfinite(row["train/loss"]) for row in rows)
    assert all(row["train/skipped_updates"] == 0 for row in rows)
    assert all(row["score/faults"] == 0 for row in rows)
    assert any(row["train/active_rows"] > 0 for row in rows)
    assert all(("reward/greedy" in row) == ("remax" in advantage) for row in rows)
