"""The measures of one evaluation: means of the reward's parts beside the reward."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from trainer.errors import ConfigError
from trainer.evaluate import evaluate_checkpoint
from trainer.loop import train
from trainer.yaml import load_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tables(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    overrides = (
        f"output={tmp_path}",
        "steps=1",
        "evaluation.limit=6",
        "evaluation.name=both",
        "evaluation.reward={type: weighted, terms: {iou: {reward: {type: vision/iou, space: grid, "
        "grid: 14}}, hit: {weight: 2, reward: {type: vision/iou, space: grid, grid: 14, "
        "threshold: 0.5}}}}",
        "monitors=[jsonl]",
        "learner.minibatches=1",
        "rollouts.groups_per_step=2",
    )
    (recipe,) = load_recipe(ROOT / "recipes" / "quickstart_vision.yaml", overrides=overrides)
    asyncio.run(train(recipe))
    folder = tmp_path / recipe.name
    rows = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return rows, metrics


def test_every_part_is_measured(tables):
    evaluations, metrics = tables
    table = evaluations[0]
    assert set(table["parts"]) == {"iou", "hit"}
    for kind in ("sampled", "greedy"):
        iou, hit = (table["parts"][name][kind] for name in ("iou", "hit"))
        assert iou["mean"] + 2 * hit["mean"] == pytest.approx(table[kind]["mean"])
        assert iou["low"] <= iou["mean"] <= iou["high"]
        assert iou["n"] == table[kind]["n"] == 6
    last = evaluations[-1]["parts"]["hit"]["greedy"]["mean"]
    assert metrics[-1]["heldout/both/hit_greedy"] == pytest.approx(last)


@pytest.fixture
def supervised(tmp_path, monkeypatch):
    """A recipe that imitates 8 boxes, loaded with more settings."""
    monkeypatch.chdir(ROOT)

    def load(*more):
        overrides = (
            f"output={tmp_path}",
            "steps=8",
            "learner.lr=3.0e-3",
            "prompts.shots=8",
            "evaluation.limit=8",
            "evaluation.every=0",
            "monitors=[jsonl]",
            *more,
        )
        (recipe,) = load_recipe(ROOT / "recipes" / "visual_rft_sft.yaml", overrides=overrides)
        return recipe

    return load


def test_a_supervised_run_is_evaluated_by_the_agent_that_answers(supervised, tmp_path):
    """The engine serves the weights that were trained: the answers change."""
    recipe = supervised()
    asyncio.run(train(recipe))
    lines = (tmp_path / recipe.name / "evaluations.jsonl").read_text().splitlines()
    before, after = map(json.loads, lines)
    assert (before["step"], after["step"]) == (0, 8)
    assert before["greedy"]["n"] == after["greedy"]["n"] == 8
    assert before["greedy"]["mean"] != after["greedy"]["mean"]
    trained = asyncio.run(evaluate_checkpoint(recipe))
    assert trained["greedy"] == after["greedy"]


def test_without_one_it_is_not(supervised, tmp_path):
    recipe = supervised("evaluation.agent=null")
    asyncio.run(train(recipe))
    assert not (tmp_path / recipe.name / "evaluations.jsonl").exists()
    with pytest.raises(ConfigError, match=r"with evaluation\.agent: single_turn"):
        asyncio.run(evaluate_checkpoint(recipe))


def test_an_evaluation_by_replay_is_refused(supervised):
    with pytest.raises(ConfigError, match="replay replays recorded answers"):
        supervised("evaluation.agent=replay")
