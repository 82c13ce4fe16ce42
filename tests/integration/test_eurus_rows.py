"""Rows as PRIME-RL/Eurus-2-RL-Data has them, through the full-scale PRIME recipe's own columns and
outcome reward."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset
from pydantic import TypeAdapter

from trainer.errors import MissingService
from trainer.ops.sandbox import Sandbox
from trainer.prompts.base import Prompts
from trainer.scoring import Scorer
from trainer.types import Group, Prompt, Rollout, Span
from trainer.yaml import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
LONG = {"inputs": [f"{n} 1\n" for n in range(12)], "outputs": [f"{n + 1}\n" for n in range(12)]}
CALL = {
    "fn_name": "pick",
    "inputs": ["[3, 5, 4]\n2", '["b", "a"]\n1'],
    "outputs": ["[5, 4]", '"b"'],
}


def row(ability: str, asked: str, truth: str) -> dict:
    return {
        "data_source": "numina_olympiads" if ability == "math" else "taco",
        "prompt": [
            {"content": "When tackling complex reasoning tasks, [ASSESS] ...", "role": "system"},
            {"content": asked, "role": "user"},
        ],
        "ability": ability,
        "reward_model": {"ground_truth": truth, "style": "rule"},
        "extra_info": {"index": 0, "split": "train"},
    }


@pytest.fixture
def recipe():
    (recipe,) = load_recipe(RECIPES / "prime.yaml", scale="full")
    return recipe


@pytest.fixture
def prompts(recipe, tmp_path) -> list[Prompt]:
    rows = [
        row("math", "What is 1/2 + 1/4?", r"\frac{3}{4}"),
        row("code", "Add two numbers.", json.dumps(LONG)),
        row("code", "Write `pick`: the largest n, in order.", json.dumps(CALL)),
    ]
    for split in ("train", "validation"):
        Dataset.from_list(rows).to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    spec = recipe.prompts.model_dump() | {"path": str(tmp_path)}
    found = TypeAdapter(Prompts).validate_python(spec)
    assert {"answer", "task"} <= found.columns()
    return list(found.heldout())


def answered(prompt: Prompt, *replies: str) -> Group:
    rollouts = []
    for reply in replies:
        question = Span(None, "user", "data", "q", [1], [False], [0.0], [-1])
        answer = Span(0, "assistant", "policy", reply, [7], [True], [0.0], [0])
        rollouts.append(Rollout(spans=[question, answer]))
    return Group(prompt, rollouts)


def py(code: str) -> str:
    return f"[OUTPUT]\n\n```python\n{code}\n```"


async def values(recipe, group: Group) -> list[float | None]:
    outcome = recipe.reward.outcome
    async with Scorer.open(outcome, recipe.scoring, seed=0, total_steps=9) as scorer:
        return [score.value for score in await scorer.score_group(group, step=1)]


async def test_mathematics(recipe, prompts):
    math = prompts[0]
    assert (math.task, math.answer) == ("math", r"\frac{3}{4}")
    assert [message["role"] for message in math.messages] == ["system", "user"]
    group = answered(math, r"So \boxed{0.75}.", r"\boxed{\frac{2}{4}}", "[OUTPUT] it is 0.75")
    assert await values(recipe, group) == [1.0, 0.0, 1.0]


async def test_code(recipe, prompts):
    try:
        Sandbox().open()
    except MissingService as error:
        pytest.skip(str(error))
    assert [prompt.task for prompt in prompts[1:]] == ["code", "code"]
    reads = "a, b = map(int, input().split())\n"
    group = answered(
        prompts[1],
        py(reads + "print(a + b)"),
        py(reads + "print(a + b if a < 4 else 0)"),  # 4 of the first 10 tests
        py(reads + "print(a + b if a < 10 else 0)"),  # only tests after the tenth fail
        reads + "print(a + b)",  # bare code counts
        "[PIVOT] no idea",
    )
    assert await values(recipe, group) == pytest.approx([1.0, 0.4, 1.0, 1.0, 0.0])
    group = answered(
        prompts[2],
        py("def pick(a, n):\n    keep = sorted(a)[-n:]\n    return [x for x in a if x in keep]"),
        py("class Solution:\n    def pick(self, a, n):\n        return (5, 4) if n == 2 else 'b'"),
        py("def pick(a, n): return [5, 4]"),
    )
    assert await values(recipe, group) == pytest.approx([0.5, 1.0, 0.5])


async def test_a_code_row_whose_tests_are_damaged_has_no_value(recipe, prompts):
    from dataclasses import replace

    broken = replace(prompts[1], answer='{"inputs": ["1"], "outputs": []}')
    assert await values(recipe, answered(broken, py("print(1)"))) == [None]
