"""Stages of one recipe: what each starts from, and what `--fresh` removes."""

from __future__ import annotations

import json

import pytest

from trainer.errors import CheckpointError, DataError
from trainer.evaluate import evaluate_checkpoint
from trainer.run_folder import folder_of
from trainer.stages import run_stages
from trainer.yaml import load_recipe

RECIPE = """
name: two
output: {output}
model: {{type: tiny_text, hidden: 24, layers: 1}}
prompts: {{type: synthetic/arithmetic, terms: 2, holdout: 4}}
reward: text/exact
monitors: [jsonl]
learner: {{lr: 3.0e-2, no_signal_steps: 0}}
rollouts: {{groups_per_step: 4, group_size: 2, sampling: {{max_tokens: 6}}}}
stages:
  sft:
    steps: 2
    rollouts: {{agent: replay, group_size: 1}}
    loss: nll
    advantage: identity
  rl:
    steps: 1
    policy: {{lora: {{rank: 2}}}}
"""


@pytest.fixture
def recipes(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(RECIPE.format(output=tmp_path / "runs"))
    return load_recipe(path)


async def test_a_later_stage_is_measured_on_the_model_it_started_from(recipes):
    """Its checkpoint holds only an adapter; what is below came out of the stage before."""
    folder = await run_stages(recipes)
    tables = [json.loads(line) for line in (folder / "evaluations.jsonl").open()]
    assert [table["step"] for table in tables] == [0, 1]
    for checkpoint, logged in zip(("start", "latest"), tables, strict=True):
        table = await evaluate_checkpoint(recipes[-1], checkpoint)
        assert table["examples"] == logged["examples"]
    weights = folder / "checkpoints" / "step_000001" / "policy.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"damaged: .*policy\.safetensors"):
        await evaluate_checkpoint(recipes[-1], "1")


async def test_fresh_forgets_every_stage_before_the_first_begins(recipes):
    first, last = recipes
    for recipe in recipes:
        folder = folder_of(recipe)
        (folder / "checkpoints" / "step_000009").mkdir(parents=True)
        (folder / "tensorboard").mkdir()
        (folder / "metrics.jsonl").write_text('{"step": 9}\n')
    rollouts = first.rollouts.model_copy(
        update={"agent": first.rollouts.agent.model_copy(update={"column": "missing"})}
    )
    with pytest.raises(ExceptionGroup) as failure:
        await run_stages([first.model_copy(update={"rollouts": rollouts}), last], fresh=True)
    assert failure.group_contains(DataError, match="missing")
    assert [path.name for path in folder_of(last).iterdir()] == ["sft"]


async def test_a_stage_that_names_a_model_starts_from_it(tmp_path):
    """Also where it is the model that the stage before started from."""
    path = tmp_path / "two.yaml"
    start = "    model: {type: tiny_text, hidden: 24, layers: 1}\n"
    path.write_text(RECIPE.format(output=tmp_path / "runs") + start)
    first, last = load_recipe(path)
    assert (first.continues, last.continues) == (True, False)
    assert first.model == last.model
    assert [r.continues for r in load_recipe(path, overrides=["stages.rl.model=tiny_text"])] == [
        True,
        False,
    ]
    folder = await run_stages([first, last])
    resolved = load_recipe(folder / "config.resolved.yaml")[0]
    assert resolved.model == first.model
    assert not resolved.continues
