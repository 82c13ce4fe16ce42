"""The measures of one evaluation: means of the reward's parts beside the reward."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from rich.console import Console

from trainer.errors import ConfigError
from trainer.evaluate import evaluate_checkpoint, figures
from trainer.loop import train
from trainer.ops.panels import evaluation_table
from trainer.rewards.base import Reward
from trainer.types import Group, Prompt, Rollout, Score, Span
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
        "threshold: 0.5}}, set: {weight: 0, reward: {type: vision/detection_set, measure: map, "
        "space: grid, grid: 14}}}}",
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
    assert set(table["parts"]) == {"iou", "hit", "set"}
    for kind in ("sampled", "greedy"):
        iou, hit = (table["parts"][name][kind] for name in ("iou", "hit"))
        assert iou["mean"] + 2 * hit["mean"] == pytest.approx(table[kind]["mean"])
        assert iou["low"] <= iou["mean"] <= iou["high"]
        assert iou["n"] == table[kind]["n"] == 6
    last = evaluations[-1]["parts"]["hit"]["greedy"]["mean"]
    assert metrics[-1]["heldout/both/hit_greedy"] == pytest.approx(last)


def test_a_figure_of_all_answers_together(tables):
    evaluations, metrics = tables
    assert set(evaluations[0]["figures"]) == {"set/mAP"}
    for kind in ("sampled", "greedy"):
        found = evaluations[0]["figures"]["set/mAP"][kind]
        assert 0 <= found["low"] <= found["mean"] <= found["high"] <= 1
        assert found["n"] == 6
    last = evaluations[-1]["figures"]["set/mAP"]["sampled"]["mean"]
    assert metrics[-1]["heldout/both/set/mAP"] == pytest.approx(last)
    text = io.StringIO()
    Console(file=text, width=120).print(evaluation_table(evaluations))
    assert "set/mAP, sampled" in text.getvalue()


GOLD = [[0, 0, 10, 10]]


def group(question, *replies):
    rollouts = [
        Rollout([Span(None, "assistant", "policy", reply, [], [], [], [])], score=Score(value))
        for reply, value in replies
    ]
    return Group(Prompt("p", ({"role": "user", "content": question},), GOLD), rollouts)


def boxes(box, confidence):
    return f'[{{"bbox_2d": {box}, "confidence": {confidence}}}]'


def test_map_by_hand():
    """Ranked together: the sure miss, then the unsure hit, so precision is 1/2 up to recall 1/2.
    As classes apart, 1 and 0. The second answers: a hit, and one that cannot be read."""
    played = [
        group("find the cat", (boxes(GOLD[0], 0.3), 1.0), (boxes(GOLD[0], 0.3), 1.0)),
        group("find the dog", (boxes([50, 50, 60, 60], 0.9), 0.0), ("no boxes", 0.0)),
        group("find the cat", ("could not be scored", None)),
    ]
    spec = {"type": "vision/detection_set", "measure": "map", "thresholds": [0.5]}
    make = TypeAdapter(Reward).validate_python
    first, second = 51 / 101 / 2, 51 / 101
    found = figures(make(spec), {"sampled": played})["mAP"]["sampled"]
    assert found["mean"] == pytest.approx((first + second) / 2)
    assert found["n"] == 2
    apart = make(spec | {"asked": "the (.+)"})
    assert figures(apart, {"sampled": played})["mAP"]["sampled"]["mean"] == pytest.approx(0.5)
    greedy = {"sampled": [], "greedy": [Group(g.prompt, g.rollouts[:1]) for g in played]}
    assert figures(make(spec), greedy)["mAP"]["sampled"] is None
    assert figures(make(spec), greedy)["mAP"]["greedy"]["mean"] == pytest.approx(first)
    assert not figures(make(spec | {"measure": "f1"}), greedy)


def test_a_class_without_brackets_is_refused():
    with pytest.raises(ValueError, match="needs brackets around the class"):
        TypeAdapter(Reward).validate_python({"type": "vision/detection_set", "asked": "the cat"})


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
