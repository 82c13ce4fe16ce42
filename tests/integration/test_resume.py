"""2N steps in one run equal N steps, `kill -9` in the middle of a step, resume, N more."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

STEPS, EVERY = 6, 3

TEXT = """
name: {name}
steps: {steps}
threads: 1
model: {{type: tiny_text, attention_dropout: 0.1, hidden: 48, intermediate: 64}}
prompts:
  type: curriculum
  source: {{type: synthetic/arithmetic, holdout: 8}}
  by: level
rollouts: {{groups_per_step: 4, group_size: 4, sampling: {{max_tokens: 8}}}}
reward: {{function: shortness:near_seven}}
modifiers: [{{type: kl, coef: 0.05, estimator: k3}}]
reference: {{kind: ema, decay: 0.5}}
learner: {{lr: 1.0e-3, minibatches: 2, token_budget: 64}}
evaluation: {{limit: 4}}
checkpoint: {{every: {every}}}
monitors: [jsonl]
"""

VISION = """
name: {name}
steps: {steps}
threads: 1
model: {{type: tiny_vision, attention_dropout: 0.1}}
policy: vision_lm
prompts: {{type: synthetic/shapes, question: [where, color], holdout: 8}}
rollouts: {{groups_per_step: 2, group_size: 3, sampling: {{max_tokens: 5}}}}
reward: {{function: shortness:near_seven}}
modifiers: [{{type: kl, coef: 0.05, estimator: k3}}]
reference: {{kind: ema, decay: 0.5}}
learner: {{lr: 1.0e-3, minibatches: 2}}
evaluation: {{limit: 2}}
checkpoint: {{every: {every}}}
monitors: [jsonl]
"""

PPO = """
name: {name}
steps: {steps}
threads: 1
model: {{type: tiny_text, attention_dropout: 0.1, hidden: 48, intermediate: 64}}
prompts: {{type: synthetic/arithmetic, holdout: 8}}
rollouts: {{groups_per_step: 4, group_size: 4, sampling: {{max_tokens: 8}}}}
reward: {{function: shortness:near_seven}}
advantage: {{type: gae, lam: 0.9, lam_critic: 1.0}}
modifiers: [{{type: kl, coef: 0.05, estimator: k1, where: reward}}]
learner: {{lr: 1.0e-3, minibatches: 2, token_budget: 64, warmup_steps: 2, schedule: cosine}}
evaluation: {{limit: 4}}
checkpoint: {{every: {every}}}
monitors: [jsonl]
"""

CRITIC = (
    PPO
    + """
critic:
  warmup_steps: 1
  learner: {{lr: 1.0e-3, epochs: 2, minibatches: 2, token_budget: 64}}
"""
)

SHARED = (
    PPO.replace("modifiers: [", "modifiers: [{{type: value, coef: 0.5}}, ")
    + "policy: {{type: causal_lm, head: both}}\n"
)

# A reward with many values, so that a model that knows nothing has something to learn.
REWARD = """
def near_seven(completions, completion_ids, **columns):
    return [-abs(sum(ids) % 13 - 7) / 7 for ids in completion_ids]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", [TEXT, VISION, CRITIC, SHARED], ids=["text", "vision", "critic", "shared_trunk"]
)
def test_killed_and_resumed_equals_uninterrupted(text, tmp_path, cohort, finished):
    (tmp_path / "shortness.py").write_text(REWARD)
    for name in ("whole", "cut"):
        recipe = text.format(name=name, steps=STEPS, every=EVERY)
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
    assert (cut / "rollouts.jsonl").read_bytes() == (whole / "rollouts.jsonl").read_bytes()
    assert len(_rows(cut / "timings.jsonl")) == STEPS
    final = Path("checkpoints") / f"step_{STEPS:06d}" / "policy.safetensors"
    assert (cut / final).read_bytes() == (whole / final).read_bytes()
    rows = _rows(metrics)
    warming = 1 if text == CRITIC else 0
    assert not any("train/loss" in row for row in rows[:warming])
    assert len({row["train/grad_norm"] for row in rows[warming:]}) == STEPS - warming
    if text in (CRITIC, SHARED):
        assert len({row["critic/value_mean"] for row in rows}) == STEPS, "no value was learned"


@pytest.mark.slow
def test_what_a_critic_did_is_shown_and_another_critic_is_refused(tmp_path, finished):
    """The first steps have no `train/loss`: the pages cope. A checkpoint belongs to its critic."""
    (tmp_path / "shortness.py").write_text(REWARD)
    text = CRITIC.format(name="shown", steps=3, every=3).replace("[jsonl]", "[console, jsonl]")
    (tmp_path / "r.yaml").write_text(text)
    code, output = finished("train", "r.yaml")
    assert code == 0, output
    assert "explained variance" in output
    code, output = finished("show", "runs/shown")
    assert code == 0, output
    for expected in ("critic", "value_clip", "critic/explained_variance", "critic/value_error"):
        assert expected in output
    assert (tmp_path / "runs" / "shown" / "curves.png").stat().st_size > 10_000
    code, output = finished("train", "r.yaml", "critic.loss.clip=0.1", "steps=4")
    assert code != 0
    assert "critic.loss.clip: 0.5 -> 0.1" in output
    code, output = finished("train", "r.yaml", "critic.learner.token_budget=90", "steps=4")
    assert code == 0, output


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
