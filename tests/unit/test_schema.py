"""The schema accepts what the loader accepts, and sees typos before it does."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from trainer.plugin import names
from trainer.rewards.base import Reward
from trainer.schema import recipe_schema
from trainer.yaml import read_yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def validator():
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_validate(validator, path):
    errors = [f"{e.json_path}: {e.message[:200]}" for e in validator.iter_errors(read_yaml(path))]
    assert not errors


@pytest.mark.parametrize(
    "recipe",
    [
        {"extends": ["a.yaml"], "loss": {"clip_high": 0.3}},
        {"stages": ["sft", "rl"]},
        {"stages": {"sft": {"loss": "nll"}, "rl": None}},
        {"scale": "full", "scales": {"full": {"stages": {"rl": {"steps": 3}}}}},
        {"reward": "my_pkg.rewards:Mine"},
        {"reward": {"type": "my_pkg.rewards:Mine", "anything": 1}},
        {"reward": {"type": "gated", "gate": "text/format", "reward": {"type": "text/exact"}}},
        {"monitors": "console"},
        {"reward": {"type": "function", "function": "my_pkg.rewards:score"}},
        {"policy": {"lora": {"rank": 4}}},
        {"critic": {"loss": {"type": "value_clip", "clip": None}, "learner": {"lr": 1e-5}}},
        {"critic": {"policy": {"type": "causal_lm", "head": "value"}, "warmup_steps": 50}},
        {"stages": {"sft": {"critic": None}}},
        {"claim": {"says": "s", "arms": {"a": None, "b": {"seed": 1}}, "measure": "reward/mean"}},
        {"claim": {"measure": ["a", {"metric": "b", "holds": "mean", "against": ["x"]}]}},
        {"claim": {"measure": {"metric": "b", "holds": {"rule": "as_good", "by": 0.1}}}},
    ],
)
def test_accepts(validator, recipe):
    assert validator.is_valid(recipe)


@pytest.mark.parametrize(
    "recipe",
    [
        {"lerner": {}},
        {"learner": {"lrr": 1}},
        {"critic": {"lerner": {}}},
        {"critic": {"loss": "value_clp"}},
        {"learner": {"lr": "fast"}},
        {"loss": "ppo_clp"},
        {"loss": {"type": "ppo_clip", "clip_hgh": 0.3}},
        {"loss": {"clip_hgh": 0.3}},
        {"reward": {"type": "gated", "gate": "text/format", "reward": {"type": "text/exct"}}},
        {"scales": {"full": {"learner": {"lrr": 1}}}},
        {"stages": {"rl": {"loss": "ppo_clp"}}},
        {"monitors": [{"type": "jsonl", "rollout_every": 1}]},
        {"claim": {"say": "s"}},
        {"claim": {"arms": {"a": 3}}},
        {"claim": {"measure": {"metric": "b", "take": "last"}}},
        {"claim": {"measure": [{"metric": "b", "holds": "surely"}]}},
        {"scales": {"tiny": {"claim": {}}}},
    ],
)
def test_a_typo_does_not_validate(validator, recipe):
    assert not validator.is_valid(recipe)


def test_every_reward_is_offered_with_its_description(validator):
    offered = {
        option["const"]: option["description"]
        for option in validator.schema["$defs"]["Reward"]["anyOf"]
        if "const" in option
    }
    assert set(offered) == set(names(Reward))
    assert all(offered.values())


def test_fields_carry_their_docstrings(validator):
    learner = validator.schema["$defs"]["Learner"]["properties"]
    assert "Passes over each batch" in learner["epochs"]["description"]
