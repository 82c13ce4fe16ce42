"""The measures of one evaluation: means of the reward's parts beside the reward."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

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
