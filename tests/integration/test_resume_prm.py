"""A run with a reward model that learns beside the policy resumes to the same numbers: its weights
and its optimiser are part of the checkpoint."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

STEPS, EVERY = 4, 2

RECIPE = """
name: {name}
steps: {steps}
threads: 1
model: {{type: tiny_text, attention_dropout: 0.1, hidden: 48, intermediate: 64}}
prompts: {{type: synthetic/arithmetic, holdout: 8}}
rollouts: {{groups_per_step: 4, group_size: 4, sampling: {{max_tokens: 8}}}}
policy: {{type: causal_lm, lora: {lora}}}
reward:
  type: model/implicit_prm
  outcome: {{function: parity:near_seven}}
  update: {update}
  loss: {loss}
  learner: {{lr: 5.0e-3, minibatches: 2, token_budget: 64}}
advantage: prime
learner: {{lr: 5.0e-3, minibatches: 2, token_budget: 64}}
evaluation: {{limit: 4}}
checkpoint: {{every: {every}}}
monitors: [jsonl]
"""

# Fractional outcomes that a model which knows nothing gets, too.
REWARD = """
def near_seven(completions, completion_ids, **columns):
    return [1 - abs(sum(ids) % 13 - 7) / 7 for ids in completion_ids]
"""

CASES = {
    "full": {"lora": "null", "update": "after", "loss": "implicit/ce"},
    "lora": {"lora": "{rank: 4, alpha: 8}", "update": "before", "loss": "implicit/dpo"},
}


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_equals_uninterrupted(case, tmp_path, cohort, finished):
    (tmp_path / "parity.py").write_text(REWARD)
    for name in ("whole", "cut"):
        recipe = RECIPE.format(name=name, steps=STEPS, every=EVERY, **CASES[case])
        (tmp_path / f"{name}.yaml").write_text(recipe)
    code, output = finished("train", "whole.yaml")
    assert code == 0, output

    process = cohort("train", "cut.yaml")
    metrics = tmp_path / "runs" / "cut" / "metrics.jsonl"
    _wait_for_rows(metrics, EVERY + 1, process)
    process.kill()
    process.communicate()
    assert len(_rows(metrics)) < STEPS, "killed too late to prove anything"
    code, output = finished("train", "cut.yaml")
    assert code == 0, output

    whole, cut = tmp_path / "runs" / "whole", tmp_path / "runs" / "cut"
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    final = Path("checkpoints") / f"step_{STEPS:06d}"
    policy = final / "policy.safetensors"
    assert (cut / policy).read_bytes() == (whole / policy).read_bytes()
    left, right = (_prm(folder / final) for folder in (cut, whole))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    before = _prm(whole / "checkpoints" / f"step_{EVERY:06d}")
    assert any(not torch.equal(before[name], right[name]) for name in right), "it learned nothing"
    rows = _rows(metrics)
    assert len({row["reward_model/grad_norm"] for row in rows}) == STEPS
    assert rows[-1]["reward_model/largest_return"] > 0


def test_a_checkpoint_of_another_reward_model_is_refused(tmp_path, finished):
    (tmp_path / "parity.py").write_text(REWARD)
    case = CASES["full"] | {"loss": "implicit/nca"}
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.format(name="r", steps=2, every=2, **case))
    code, output = finished("train", "r.yaml")
    assert code == 0, output
    code, output = finished(
        "train", "r.yaml", "reward.model={type: tiny_text, hidden: 32, heads: 2}"
    )
    assert code != 0
    assert "reward.model" in output


def _prm(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "trainer.pt", weights_only=False)["reward"]["prm"]["weights"]


def _wait_for_rows(path: Path, count: int, process) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and len(_rows(path)) >= count:
            return
        time.sleep(0.005)
    pytest.fail(f"the run ended or stalled before step {count}: {process.stdout.read()}")


def _rows(path: Path) -> list[dict]:
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
