"""The command line: exit codes, messages without tracebacks, and that it starts fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainer import cli
from trainer.errors import ConfigError, NothingPasses

ROOT = Path(__file__).parents[2]
MINIMAL = (
    "name: r\nsteps: 10\nmodel: tiny_text\nprompts: synthetic/arithmetic\nreward: text/exact\n"
)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(MINIMAL)
    return str(path)


@pytest.fixture
def failing(monkeypatch, recipe):
    """`failing(error)` is the exit code of a `cohort train` whose run raises `error`."""

    def run(error: BaseException) -> int:
        def stop(arguments):
            raise error

        monkeypatch.setattr(cli, "_recipes", stop)
        return cli.main(["train", recipe])

    return run


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from trainer.cli import _parser; _parser().format_help();"
        "print(sorted({'torch', 'transformers', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_command_is_listed(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for name in ("train", "eval", "check", "serve", "show", "schema", "score", "doctor"):
        assert f"\n    {name} " in shown


def test_a_wrong_recipe_is_one_message_and_code_2(recipe, capsys):
    assert cli.main(["check", recipe, "lerner.lr=1"]) == 2
    said = capsys.readouterr().err
    assert said == (
        "ConfigError: command line: lerner: unknown key of recipe; did you mean 'learner'?\n"
    )


def test_overrides_may_stand_on_both_sides_of_options(recipe, capsys):
    assert cli.main(["check", recipe, "steps=7", "--stage", "rl", "rollouts.group_size=3"]) == 0
    shown = capsys.readouterr().out
    assert "8 prompts x 3 answers" in shown
    assert "7 in 7 steps" in shown


@pytest.mark.parametrize("word", ["--frsh", "--scal=tiny", "-x"])
def test_an_unknown_argument_is_refused(recipe, word, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", recipe, "a=1", word])
    assert caught.value.code == 2
    assert f"unknown argument: {word}" in capsys.readouterr().err


def test_a_failed_run_is_code_1_without_traceback(failing, capsys):
    assert failing(NothingPasses("64 groups dropped")) == 1
    assert capsys.readouterr().err == "NothingPasses: 64 groups dropped\n"


def test_the_traceback_is_there_on_request(failing, capsys, monkeypatch):
    monkeypatch.setenv("COHORT_TRACEBACK", "1")
    assert failing(ConfigError("bad")) == 2
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert said.endswith("ConfigError: bad\n")


def test_an_error_inside_a_task_group_is_the_one_that_counts(failing, capsys):
    group = ExceptionGroup("unhandled errors in a TaskGroup", [NothingPasses("the reason")])
    assert failing(ExceptionGroup("outer", [group, OSError("a consequence")])) == 1
    assert capsys.readouterr().err == "NothingPasses: the reason\n"


def test_a_bug_shows_its_traceback(failing, capsys):
    with pytest.raises(ZeroDivisionError) as bug:
        print(1 // 0)
    assert failing(ExceptionGroup("group", [bug.value])) == 1
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert "test_a_bug_shows_its_traceback" in said
    assert said.endswith("ZeroDivisionError: integer division or modulo by zero\n")
    assert "ExceptionGroup" not in said


def test_interrupted(failing, capsys):
    assert failing(KeyboardInterrupt()) == 130
    assert "the same command without --fresh continues" in capsys.readouterr().err


def test_messages_carry_the_rank(failing, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    failing(ConfigError("first\nsecond"))
    assert capsys.readouterr().err == "[rank 1] ConfigError: first\n[rank 1] second\n"


def test_check_of_a_recipe_that_cannot_run(recipe, capsys):
    assert cli.main(["check", recipe, "reward={type: route, tasks: {a: text/exact}}"]) == 2
    assert "route needs the column" in capsys.readouterr().out


def test_show_of_no_run(tmp_path, capsys):
    assert cli.main(["show", str(tmp_path)]) == 1
    assert "not a run folder" in capsys.readouterr().err


def test_schema_is_json(capsys):
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Cohort recipe"


def test_score(tmp_path, capsys):
    rows, scored = tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
    rows.write_text(
        '{"prompt": "1+1", "completion": "<answer>2</answer>", "answer": "2"}\n'
        '{"prompt": "1+1", "completion": "<answer>3</answer>", "answer": "2"}\n'
    )
    arguments = ["score", "--reward", "text/exact", str(rows), "--output", str(scored)]
    assert cli.main(arguments) == 0
    assert "2 of 2 scored" in capsys.readouterr().out
    assert [json.loads(line)["reward"] for line in scored.read_text().splitlines()] == [1.0, 0.0]
    assert cli.main(["score", "--reward", "{type: text/exct}", str(rows)]) == 2
    assert "did you mean 'text/exact'?" in capsys.readouterr().err


def test_score_with_a_model_of_scoring(tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "1+1", "completion": "2", "answer": "2"}\n')
    arguments = ["score", "--reward", "text/similarity", str(rows)]
    assert cli.main(arguments) == 1
    assert "set scoring.encoder" in capsys.readouterr().err
    given = f"{{encoder: {{path: {tmp_path / 'none'}}}}}"
    assert cli.main([*arguments, "--scoring", given]) == 2
    assert "scoring.encoder.path: cannot read" in capsys.readouterr().err
    assert cli.main([*arguments, "--scoring", "{encodr: 1}"]) == 2
    assert "did you mean" in capsys.readouterr().err
