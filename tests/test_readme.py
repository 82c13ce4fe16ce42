"""What the README tells a newcomer to type works as it stands there."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from trainer.advantages.base import Advantage
from trainer.cli import main
from trainer.losses.base import Loss
from trainer.modifiers.base import Modifier
from trainer.plugin import names
from trainer.rewards.base import Reward
from trainer.yaml import load_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the repository's recipes, and the README's two rewards in one file."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    function, plugin = (
        code for code in _blocks("python") if "def short" in code or "class" in code
    )
    (tmp_path / "my_rewards.py").write_text(f"{plugin}\n\n{function}")
    yield tmp_path
    sys.modules.pop("my_rewards", None)


def test_the_recipe_explained_line_by_line_loads(folder):
    (text,) = (block for block in _blocks("yaml") if "groups_per_step" in block)
    (folder / "sums.yaml").write_text(text)
    (recipe,) = load_recipe(folder / "sums.yaml")
    assert recipe.rollouts.group_size == yaml.safe_load(text)["rollouts"]["group_size"]


def test_a_reward_in_one_file_trains(folder):
    command = next(line for line in README.splitlines() if "my_rewards:short" in line)
    words = ["train", "recipes/quickstart_text.yaml", "name=short"]
    words.append(re.search(r"reward='(.*)'", command).expand(r"reward=\1"))
    small = ["steps=2", "rollouts.groups_per_step=2", "evaluation.limit=2", "monitors=[jsonl]"]
    assert main([*words, *small]) == 0
    lines = (folder / "runs" / "short" / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line)["score/faults"] == 0 for line in lines)
    assert len({json.loads(line)["reward/mean"] for line in lines}) == 2


def test_the_plugin_scores_recorded_answers(folder, capsys):
    rows = [{"prompt": "q", "completion": text, "answer": "4"} for text in ("Four.", "four")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--reward", "{type: my_rewards:FullStop, value: 2}", "rows.jsonl"]
    assert main(["score", *words, "--output", "scored.jsonl"]) == 0
    scored = [json.loads(line) for line in (folder / "scored.jsonl").read_text().splitlines()]
    assert [row["reward"] for row in scored] == [2.0, 0.0]


def test_every_command_of_the_table_exists(capsys):
    for command in re.findall(r"^\| `cohort (\w+)", README, re.MULTILINE):
        with pytest.raises(SystemExit) as done:
            main([command, "--help"])
        assert done.value.code == 0


def test_every_plugin_of_the_tables_exists():
    table = "\n".join(line for line in README.splitlines() if line.startswith("| "))
    listed = re.findall(r"`(\w+)/\{([\w,]+)\}`", table)
    named = {f"{folder}/{name}" for folder, inside in listed for name in inside.split(",")}
    assert len(named) > 40
    known = {name for family in (Reward, Loss) for name in names(family)}
    assert named <= known
    rows = {line.split("|")[1].strip(): line.split("|")[2] for line in table.splitlines()}
    for row, family in (("advantages", Advantage), ("losses", Loss), ("modifiers", Modifier)):
        alone = set(re.findall(r"`(\w+)`", rows[row]))
        assert alone <= set(names(family))
