"""Reward models from the stage that trains them to the run that they judge."""

from __future__ import annotations

import json

import pytest
import torch

from trainer.check import check_recipe
from trainer.errors import CheckpointError, ConfigError, DataError
from trainer.evaluate import evaluate_checkpoint
from trainer.loop import train
from trainer.models.pretrained import Pretrained
from trainer.models.stage import Stage
from trainer.run_folder import folder_of
from trainer.stage_models import exported, in_place, planned
from trainer.stages import run_stages
from trainer.yaml import dump_recipe, load_recipe, read_yaml

RECIPE = """
name: judged
output: {output}
threads: 1
model: {{type: tiny_text, hidden: 24, layers: 1, attention_dropout: 0.1}}
prompts: {{type: synthetic/chain, max_value: 3, terms: 2, holdout: 4}}
monitors: [jsonl]
evaluation: {{every: 2, limit: 2, reward: {{type: text/exact, extract: tag}}}}
stages:
  sft:
    steps: 3
    rollouts:
      agent: {{type: replay_steps, column: steps, separator: "\\n"}}
      groups_per_step: 8
      group_size: 1
    loss: nll
    advantage: identity
    learner: {{lr: 1.0e-2}}
  prm:
    model: {{type: stage, stage: sft}}
    policy: {{head: value, value_at: after}}
    steps: 4
    rollouts:
      agent: {{type: replay_steps, column: steps, separator: "\\n"}}
      groups_per_step: 8
      group_size: 1
    reward: process/step_labels
    loss: step_bce
    advantage: identity
    learner: {{lr: 1.0e-2, minibatches: 2}}
    checkpoint: {{every: 2}}
  rl:
    model: {{type: stage, stage: sft}}
    steps: 4
    rollouts: {{groups_per_step: 4, group_size: 4, sampling: {{max_tokens: 12}}}}
    reward:
      type: weighted
      terms:
        prm:
          reward:
            type: model/step_prm
            model: {{type: stage, stage: prm}}
            splitter: {{by: line}}
        answer: {{weight: 0.5, reward: {{type: text/exact, extract: tag}}}}
    advantage: min_form
    learner: {{lr: 1.0e-3, minibatches: 2}}
    checkpoint: {{every: 2}}
"""


PAIRS = """
name: preferred
output: {output}
threads: 1
model: {{type: tiny_text, hidden: 48, layers: 2}}
prompts: {{type: files, path: {pairs}}}
monitors: [jsonl]
stages:
  rm:
    steps: 60
    policy: {{head: value, value_at: after}}
    rollouts: {{agent: replay_pairs, groups_per_step: 16, group_size: 2}}
    reward: recorded
    loss: {{type: bradley_terry, centre: 0.01}}
    advantage: identity
    learner: {{lr: 3.0e-3, token_budget: 40}}
  rl:
    model: {{type: tiny_text, hidden: 48, layers: 2}}
    steps: 1
    rollouts: {{groups_per_step: 2, group_size: 4, sampling: {{max_tokens: 3}}}}
    reward: {{type: model/reward_model, model: {{type: stage, stage: rm}}}}
"""


@pytest.fixture
def load(tmp_path):
    """`load("steps=2", ..., name="whole")`: the stages, with overrides."""

    def stages(*overrides, output="runs", text=RECIPE):
        path = tmp_path / "judged.yaml"
        path.write_text(text.format(output=tmp_path / output, pairs=tmp_path / "pairs.jsonl"))
        return load_recipe(path, overrides=overrides)

    return stages


def rows(recipe):
    lines = (folder_of(recipe) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


async def test_stages_train_a_judge_and_are_judged(load):
    sft, prm, rl = load()
    await run_stages([sft, prm, rl])
    start = Pretrained(path=str(exported(sft)))
    judge = Pretrained(path=str(exported(prm)))
    assert start.value_head() is None
    head = judge.value_head()
    assert head is not None
    assert head["weight"].any()
    resolved = read_yaml(folder_of(rl) / "config.resolved.yaml")
    assert resolved["model"] == start.model_dump(mode="json")
    term = resolved["reward"]["terms"]["prm"]["reward"]
    assert term["model"] == judge.model_dump(mode="json")
    trained = rows(prm)
    assert all(0 <= row["train/accuracy"] <= 1 for row in trained)
    assert trained[0]["train/loss"] == pytest.approx(0.6931, abs=0.05), "the head starts at 0"
    assert trained[0]["train/tokens"] < 8 * 6, "only the ends of steps are trained on"
    for row in rows(rl):
        assert {"reward/prm/min", "reward/prm/sum", "reward/answer"} <= row.keys()
        assert row["score/faults"] == 0
    table = await evaluate_checkpoint(rl)
    assert table["step"] == 4
    with pytest.raises(ConfigError, match=r"replays recorded answers"):
        await evaluate_checkpoint(prm)


async def test_a_run_with_a_served_judge_resumes_to_the_same_bits(load):
    whole = load(output="whole")
    await run_stages(whole)
    *before, last = load(output="cut")
    *_, short = load("stages.rl.steps=2", output="cut")
    await run_stages([*before, short])
    await train(last)
    ours, theirs = rows(whole[-1]), rows(last)
    assert [row["step"] for row in theirs] == [1, 2, 3, 4]
    assert ours == theirs
    assert _weights(whole[-1]) == _weights(last)


async def test_a_stage_of_a_reward_model_resumes_to_the_same_bits(load):
    sft, whole, _ = load(output="whole")
    await run_stages([sft, whole])
    sft, last, _ = load(output="cut")
    _, short, _ = load("stages.prm.steps=2", output="cut")
    await run_stages([sft, short])
    await train(last)
    assert rows(whole) == rows(last)
    assert _weights(whole) == _weights(last)


def _weights(recipe) -> dict[str, list[float]]:
    from safetensors.torch import load_file

    folder = exported(recipe)
    found = load_file(folder / "model.safetensors")
    found |= Pretrained(path=str(folder)).value_head() or {}
    return {name: tensor.double().flatten().tolist() for name, tensor in found.items()}


async def test_pairs_train_a_reward_model(load, tmp_path):
    """Right sums are preferred to wrong ones; after training they are worth more, and the model
    judges a run."""
    pairs = tmp_path / "pairs.jsonl"
    lines = [
        {"question": f"{a}+{b}=", "chosen": f"{a + b}", "rejected": f"{a + b + 1}", "answer": a + b}
        for a in range(4)
        for b in range(4)
    ]
    pairs.write_text("\n".join(map(json.dumps, lines)))
    rm, rl = load(text=PAIRS)
    await run_stages([rm, rl])
    learned = rows(rm)
    assert learned[0]["train/loss"] == pytest.approx(0.6931, abs=1e-3)
    assert learned[-1]["train/accuracy"] == 1.0
    assert learned[-1]["train/gap"] > 1
    assert rows(rl)[0]["reward/std"] > 0


async def test_labels_that_do_not_fit_end_the_stage(load, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "1+1=", "steps": ["1+1=2", "2"], "labels": [1]}))
    changes = (f"prompts={{type: files, path: {path}}}", "stages=[prm]", "model=tiny_text")
    (prm,) = load(*changes)
    with pytest.raises(ExceptionGroup) as caught:
        await train(prm)
    error = caught.value.exceptions[0]
    assert isinstance(error, DataError)
    assert f"{path}:1: column 'labels' has 1 labels" in str(error)


async def test_a_stage_that_was_not_trained_is_named(load):
    *_, rl = load()
    with pytest.raises(CheckpointError, match=r"stage 'prm' left no exported .*judged/prm"):
        await train(rl)
    with pytest.raises(ConfigError, match=r"'sft' is known only inside of a run"):
        Stage(stage="sft").config()


def test_a_recipe_with_stages_is_planned_before_anything_is_trained(load):
    recipes = load()
    ahead = planned(recipes)
    assert [recipe.model.name() for recipe in ahead] == ["tiny_text"] * 3
    assert not [line for recipe in ahead for line in check_recipe(recipe).problems]
    assert in_place(recipes[0]) is recipes[0]
    assert "type: stage" in dump_recipe(recipes[2])
    assert "type: stage" not in dump_recipe(ahead[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stages.prm.loss=nll", r"policy\.head: value has no log-probs for loss: nll"),
        ("stages.prm.policy.head=lm", r"value_at: after reads other positions"),
        ("stages.sft.loss=step_bce", r"loss: step_bce trains a value head: set policy\.head"),
        ("stages.prm.rollouts.agent=single_turn", r"policy\.head: value cannot write answers"),
    ],
)
def test_heads_and_losses_that_do_not_fit_are_refused(load, change, message):
    with pytest.raises(ConfigError, match=message):
        load(change)


def test_the_random_state_is_left_alone(tmp_path):
    """A head that is loaded draws nothing."""
    state = torch.get_rng_state()
    assert Pretrained(path="configs/model/tiny_text").value_head() is None
    assert torch.equal(torch.get_rng_state(), state)
