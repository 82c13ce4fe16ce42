"""A reward that asks the reference: in a run, and in the evaluation of its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from trainer.evaluate import evaluate_checkpoint
from trainer.loop import train
from trainer.run import Run
from trainer.run_folder import folder_of
from trainer.run_state import load_judges
from trainer.yaml import load_recipe

MODEL = Path(__file__).parents[2] / "configs/model/tiny_text"
RECIPE = """
name: careful
output: {output}
threads: 1
steps: 2
model: {{type: pretrained, path: {model}}}
prompts: {{type: synthetic/arithmetic, holdout: 4}}
rollouts: {{groups_per_step: 2, group_size: 4, sampling: {{max_tokens: 40}}}}
reward:
  type: care
  accuracy: {{type: text/exact, extract: tag}}
  format: {{type: length/characters, least: 6, most: null}}
  model: reference
reference: {{kind: ema, decay: 0.5}}
learner: {{lr: 1.0e-2}}
evaluation: {{limit: 2}}
monitors: [jsonl]
"""


@pytest.mark.parametrize("lora", ["null", "{rank: 2}"])
async def test_care_with_a_slow_copy(tmp_path, lora):
    path = tmp_path / "careful.yaml"
    path.write_text(RECIPE.format(output=tmp_path, model=MODEL))
    (recipe,) = load_recipe(path, overrides=[f"policy={{type: causal_lm, lora: {lora}}}"])
    await train(recipe)
    lines = (folder_of(recipe) / "metrics.jsonl").read_text().splitlines()
    likely = [found for line in lines if (found := json.loads(line).get("reward/likelihood"))]
    assert likely
    assert all(0 < value <= 0.95 for value in likely)
    table = await evaluate_checkpoint(recipe)
    assert table["step"] == 2
    async with Run.open(recipe, training=False) as run:
        folder = run.checkpoints.path(2)
        saved = torch.load(folder / "trainer.pt", weights_only=False)["reference"]
        assert saved
        assert run.scorer.reference is run.reference
        assert any(not torch.equal(run.reference.state_dict()[n], saved[n]) for n in saved)
        load_judges(run, folder)
        assert all(torch.equal(run.reference.state_dict()[n], saved[n]) for n in saved)


async def test_a_listener_that_does_not_follow(tmp_path):
    """The start weights hear the reasoning for a sum, and say how likely the right one is."""
    path = tmp_path / "heard.yaml"
    path.write_text(RECIPE.format(output=tmp_path, model=MODEL))
    numbers = [str(number) for number in range(28)]
    listener = {"type": "listener", "choices": numbers, "question": "{reasoning}", "verdict": None}
    overrides = ["name=heard", f"reward={json.dumps(listener)}", "reference={kind: frozen}"]
    (recipe,) = load_recipe(path, overrides=overrides)
    await train(recipe)
    lines = (folder_of(recipe) / "rollouts.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    heard = [row["reward"] for row in rows if row["scored"] == "ok"]
    assert heard
    assert all(0 < value < 1 for value in heard)
    assert {row["scored"] for row in rows} <= {"ok", "unparsable"}
