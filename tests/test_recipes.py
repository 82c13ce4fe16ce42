"""Every shipped recipe loads at every scale, round-trips, and takes real steps at tiny scale."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shlex
from pathlib import Path

import pytest
import yaml

from trainer import stages
from trainer.check import unready
from trainer.loop import train
from trainer.yaml import dump_recipe, load_claim, load_recipe

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def _scales(path: Path) -> list[str]:
    return list(yaml.safe_load(path.read_text()).get("scales", {})) or ["tiny"]


DRAWN = ("curr_reft", "ppo", "quickstart_text", "quickstart_vision")
"""Stages, a critic, the demo: a picture takes longer than the two steps that it shows."""
SERVED = {"judge": "tests/integration/vllm/test_judge.py"}
"""Start a vLLM: their steps are taken where one server serves several tests."""
CASES = [(path, scale) for path in RECIPES for scale in _scales(path)]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(("path", "scale"), CASES, ids=lambda value: getattr(value, "stem", value))
def test_it_loads_and_what_is_saved_loads_back_equal(path, scale, tmp_path):
    chosen = scale if "scales" in path.read_text() else None
    for recipe in load_recipe(path, scale=chosen):
        assert recipe.description, "say in one line what it shows"
        saved = tmp_path / f"{recipe.stage}.yaml"
        saved.write_text(dump_recipe(recipe))
        assert load_recipe(saved) == [recipe]


@pytest.mark.parametrize(
    "path", [p for p in RECIPES if p.stem not in SERVED], ids=lambda path: path.stem
)
def test_two_steps_at_tiny_scale(path, tmp_path, monkeypatch):
    """For the cold starts: the command recorded in the recipe still loads and starts."""
    overrides = (
        f"output={tmp_path}",
        "steps=2",
        "evaluation.limit=2",
        "monitors=[jsonl]",
        "learner.minibatches=1",
        "rollouts.groups_per_step=2",
    )
    if path.stem not in DRAWN:
        monkeypatch.setattr(stages, "draw_curves", lambda folder: None)
    recipes = load_recipe(path, overrides=overrides)
    if lacking := [line for recipe in recipes for line in unready(recipe)]:
        pytest.skip(lacking[0])
    folder = asyncio.run(stages.run_stages(recipes))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert (folder / "checkpoints" / "step_000002" / "model" / "model.safetensors").exists()
    if path.stem in DRAWN:
        assert (folder / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize(("name", "test"), SERVED.items())
def test_a_recipe_with_a_server_takes_its_steps_elsewhere(name, test):
    """Where vLLM is missing the recipe says so, and how to get it, before anything starts."""
    assert f"recipes/{name}.yaml" in (ROOT / test).read_text()
    (recipe,) = load_recipe(ROOT / "recipes" / f"{name}.yaml")
    lacking = unready(recipe)
    if importlib.util.find_spec("vllm") is None:
        assert "make setup-vllm" in lacking[0]
    else:
        assert not lacking


@pytest.mark.parametrize(
    "table", sorted((ROOT / "recipes" / "claims").glob("*.md")), ids=lambda path: path.stem
)
def test_a_claims_table_is_of_the_recipe_as_it_stands(table):
    """Who changes a claim's words or settings has to run it again."""
    claim = load_claim(f"recipes/{table.stem}.yaml")
    assert claim is not None
    text = table.read_text()
    assert text.startswith(f"# {table.stem}: {claim.says}\n")
    for arm in claim.arms:
        words = ["cohort", "train", f"recipes/{table.stem}.yaml", *claim.overrides(arm)]
        assert f"\n- {arm}: `{shlex.join(words)}`\n" in text


@pytest.mark.parametrize("scale", ["tiny", "full"])
def test_the_supervised_baseline_is_supervised_at_every_scale(scale):
    (sft,) = load_recipe("recipes/visual_rft_sft.yaml", scale=scale)
    (rl,) = load_recipe("recipes/visual_rft_grounding.yaml", scale=scale)
    chosen = (sft.rollouts.agent, sft.loss, sft.advantage, sft.reward, sft.evaluation.agent)
    assert [one.name() for one in chosen] == ["replay", "nll", "identity", "none", "single_turn"]
    assert (sft.rollouts.group_size, sft.modifiers, sft.needs) == (1, (), frozenset())
    assert not sft.rollouts.agent.samples
    assert sft.learner.lr > rl.learner.lr
    same = ("model", "policy", "steps")
    assert [getattr(sft, key) for key in same] == [getattr(rl, key) for key in same]
    assert sft.evaluation.reward == rl.evaluation.reward
    if scale == "full":
        assert sft.prompts.source == rl.prompts.source
        assert "think" not in sft.prompts.template.suffix
    else:
        assert sft.prompts == rl.prompts


@pytest.mark.slow
def test_the_tiny_text_run_learns(tmp_path):
    """At least 25 points of held-out accuracy, sampled, in 60 steps from a fixed seed."""
    overrides = (f"output={tmp_path}", "steps=60", "seed=7", "monitors=[jsonl]")
    (recipe,) = load_recipe(ROOT / "recipes" / "quickstart_text.yaml", overrides=overrides)
    asyncio.run(train(recipe))
    lines = (tmp_path / recipe.name / "evaluations.jsonl").read_text().splitlines()
    before, after = json.loads(lines[0]), json.loads(lines[-1])
    assert (before["step"], after["step"]) == (0, 60)
    assert after["sampled"]["mean"] - before["sampled"]["mean"] >= 0.25
    assert after["greedy"]["mean"] >= before["greedy"]["mean"]
    assert after["sampled"]["n"] == 200
