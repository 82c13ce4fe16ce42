"""Which runs a claim asks for, what is kept of earlier ones, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.cli import main
from trainer.errors import ConfigError
from trainer.reproduce import (
    Board,
    Request,
    check_claim,
    claim_of,
    find_recipe,
    gather,
    trials_of,
)
from trainer.run_folder import RESOLVED, folder_of
from trainer.trials import adopt, forget, make_trial, refuse_changed
from trainer.yaml import dump_recipe

RECIPE = """
name: demo
description: d
steps: 4
model: tiny_text
prompts: synthetic/arithmetic
reward: text/exact
"""
CLAIM = """
claim:
  says: it works
  arms: {ours: {}, base: {learner.lr: 1.0e-9}}
  measure: reward/mean
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "demo.yaml").write_text(RECIPE + CLAIM)
    (tmp_path / "recipes" / "plain.yaml").write_text(RECIPE)
    return tmp_path


def trials(**fields):
    path = find_recipe("demo")
    return trials_of(path, claim_of(path), Request("demo", **fields))


def pretend(trial, steps: int) -> None:
    """Leaves what a run of so many steps leaves."""
    for recipe in trial.recipes:
        where = folder_of(recipe)
        where.mkdir(parents=True)
        (where / RESOLVED).write_text(dump_recipe(recipe))
        rows = [{"step": step, "reward/mean": 0.5} for step in range(1, steps + 1)]
        (where / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_every_arm_with_every_seed(folder):
    found = trials()
    assert [trial.name for trial in found] == [
        f"{arm}_seed{seed}" for seed in (0, 1, 2) for arm in ("ours", "base")
    ]
    assert found[0].folder == Path("runs/reproduce/demo/ours_seed0")
    assert [trial.recipes[0].seed for trial in found] == [0, 0, 1, 1, 2, 2]
    assert found[1].recipes[0].learner.lr == 1e-9
    assert [monitor.name() for monitor in found[0].recipes[0].monitors] == ["jsonl"]


def test_a_part_of_them_with_other_settings(folder):
    found = trials(arms=("base",), seeds=(7,), settings=("steps=9", "learner.lr=0.5"))
    assert [trial.name for trial in found] == ["base_seed7"]
    assert found[0].total == 9
    assert found[0].recipes[0].learner.lr == 0.5, "the command line wins over the arm"


def test_finished_runs_are_kept(folder):
    first, second, *_ = trials()
    assert not first.finished
    pretend(first, 4)
    pretend(second, 3)
    assert (first.finished, first.done) == (True, 4)
    assert (second.finished, second.done) == (False, 3)
    refuse_changed([first, second])
    forget([first])
    assert (first.finished, first.done) == (False, 0)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("learner.lr=0.5", r"learner\.lr: 1e-06 -> 0\.5"),
        ("evaluation.limit=3", "evaluation: "),
        ("steps=2", "steps: 4 -> 2"),
    ],
)
def test_a_run_with_other_settings_is_refused(folder, setting, said):
    pretend(trials()[0], 4)
    changed = trials(settings=(setting,))[0]
    assert not changed.finished
    with pytest.raises(ConfigError, match=said):
        refuse_changed([changed])


def test_more_steps_go_on_from_what_is_there(folder):
    pretend(trials()[0], 4)
    longer = trials(settings=("steps=6",))[0]
    assert not longer.finished
    refuse_changed([longer])
    falling = make_trial(
        Path("recipes/demo.yaml"),
        "ours",
        0,
        ["learner.schedule=linear"],
        output=Path("runs/falling"),
    )
    pretend(falling, 4)
    other = make_trial(
        Path("recipes/demo.yaml"),
        "ours",
        0,
        ["learner.schedule=linear", "steps=6"],
        output=Path("runs/falling"),
    )
    with pytest.raises(ConfigError, match="steps: 4 -> 6"):
        refuse_changed([other])


def test_only_arms_that_are_compared_need_the_metric(folder):
    path = folder / "recipes" / "demo.yaml"
    third = CLAIM.replace("base:", "other: {seed: 5}, base:").replace(
        "measure: reward/mean", "measure: {metric: reward/mean, against: [base]}"
    )
    path.write_text(RECIPE + third)
    found = trials(seeds=(0,))
    for trial in found:
        pretend(trial, 4)
    ours, other, base = found
    (other.folder / "metrics.jsonl").write_text('{"step": 4, "reward/std": 0.1}\n')
    outcome = gather(path, claim_of(path), found, {}, Request("demo"))
    assert outcome.problems == []
    assert set(outcome.numbers["reward/mean, final"]) == {"ours", "base"}
    (base.folder / "metrics.jsonl").write_text('{"step": 4, "reward/std": 0.1}\n')
    outcome = gather(path, claim_of(path), found, {}, Request("demo"))
    assert len(outcome.problems) == 1
    assert "base_seed0 logged no 'reward/mean'" in outcome.problems[0]
    assert ours.arm in outcome.numbers["reward/mean, final"]


STAGES = """
stages:
  sft: {steps: 4}
  warm: {steps: 4}
  rl: {steps: 4}
"""


@pytest.fixture
def staged(folder) -> Path:
    path = folder / "recipes" / "demo.yaml"
    arms = CLAIM.replace("learner.lr:", "stages.rl.learner.lr:")
    path.write_text(RECIPE.replace("steps: 4\n", "") + STAGES + arms)
    return path


def part(trial, stages: int) -> None:
    """Leaves what a run leaves that is through with its first stages and has begun the next."""
    for recipe in trial.recipes[: stages + 1]:
        where = folder_of(recipe)
        where.mkdir(parents=True, exist_ok=True)
        (where / RESOLVED).write_text(dump_recipe(recipe))
    for recipe in trial.recipes[:stages]:
        rows = "".join(json.dumps({"step": step}) + "\n" for step in range(1, 5))
        (folder_of(recipe) / "metrics.jsonl").write_text(rows)
        weights = folder_of(recipe) / "checkpoints" / "step_000004" / "model"
        weights.mkdir(parents=True)
        (weights / "weights").write_text(f"{trial.name} {recipe.stage}")


def test_first_stages_that_arms_have_in_common_are_run_once(staged):
    ours, base, later, _ = trials(seeds=(0, 1))
    part(ours, 2)
    for trial in (base, later):
        adopt(trial, [ours, base, later])
    weights = [
        folder_of(recipe) / "checkpoints" / "step_000004" / "model" / "weights"
        for recipe in base.recipes[:2]
    ]
    assert [path.read_text() for path in weights] == ["ours_seed0 sft", "ours_seed0 warm"]
    assert base.done == 8
    assert base.changed() == [], "the settings of the other run were left out"
    assert not folder_of(base.recipes[2]).joinpath(RESOLVED).exists()
    assert later.done == 0, "another seed"
    adopt(base, [ours, base])
    assert base.done == 8, "once more changes nothing"


def test_a_stage_that_is_not_through_is_not_taken(staged):
    ours, base = trials(seeds=(0,))
    part(ours, 1)
    adopt(base, [ours, base])
    assert base.done == 4, "of the first stage alone"
    assert not folder_of(base.recipes[1]).exists()


def test_a_stage_with_other_settings_is_not_taken(staged):
    staged.write_text(staged.read_text().replace("stages.rl.learner", "stages.warm.learner"))
    ours, base = trials(seeds=(0,))
    part(ours, 2)
    adopt(base, [ours, base])
    assert base.done == 4, "sft is the same, warm is not"


def test_a_stage_that_was_begun_is_left_as_it_is(staged):
    ours, base = trials(seeds=(0,))
    part(ours, 2)
    part(base, 0)
    adopt(base, [ours, base])
    assert base.done == 4, "warm alone"


def test_the_display_counts_runs(folder):
    found = trials(seeds=(0,))
    pretend(found[0], 2)
    board = Board(found)
    board.states["ours_seed0"] = "done"
    assert board.finished == 1
    assert board.__rich__()


# -- the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["demmo"], "no recipe 'demmo' in recipes/; did you mean 'demo'?"),
        (["gone.yaml"], "no such file: gone.yaml"),
        (["plain"], "has no `claim:`, so there is nothing to reproduce; recipes beside it that"),
        (["demo", "--arms", "base,other"], "--arms: no arm 'other'"),
        (["demo", "learner.lrr=3"], "claim.arms.ours: command line: learner.lrr: unknown key"),
    ],
)
def test_mistakes_are_one_message(folder, capsys, words, said):
    assert main(["reproduce", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_seeds_must_be_numbers(folder, capsys):
    with pytest.raises(SystemExit):
        main(["reproduce", "demo", "--seeds", "one"])
    assert "invalid comma-separated int value: 'one'" in capsys.readouterr().err


def test_without_a_name_it_lists_claims(folder, capsys):
    assert main(["reproduce"]) == 0
    out = capsys.readouterr().out
    assert "it works" in out
    assert "plain" not in out


def test_an_arm_that_the_recipe_does_not_take_is_found_by_check(folder, capsys):
    path = folder / "recipes" / "demo.yaml"
    assert check_claim(path).says == "it works"
    assert check_claim(folder / "recipes" / "plain.yaml") is None
    path.write_text(path.read_text().replace("learner.lr", "learner.lrr"))
    assert main(["check", "recipes/demo.yaml"]) == 2
    assert "claim.arms.base: command line: learner.lrr: unknown key" in capsys.readouterr().err
