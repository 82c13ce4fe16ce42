"""What a person reads, in a pipe and in a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console as Terminal

from trainer.monitors.console import Console
from trainer.monitors.jsonl import Jsonl
from trainer.ops.panels import sample_answers
from trainer.ops.progress import Progress

RECIPE = {"name": "demo", "stage": "rl"}
REPORT = {
    "reward/mean": 0.25,
    "reward/std": 0.4,
    "reward/format": 1.0,
    "train/entropy": 0.9,
    "rollout/length_mean": 12.0,
}
TIMING = {"time/generate": 3.0, "time/train": 1.0, "time/step": 4.0, "tokens_per_second": 1234.0}


@pytest.fixture
def page():
    """`page(renderable)` as plain text, 100 columns."""

    def render(renderable) -> str:
        out = io.StringIO()
        Terminal(file=out, width=100).print(renderable)
        return out.getvalue()

    return render


async def test_a_log_file_gets_one_line_a_step(make_context, make_table, capsys):
    monitor = Console()
    async with monitor.open(make_context(total_steps=2), RECIPE):
        monitor.note("loading [the] model")
        monitor.evaluation(0, make_table(0, 0.1))
        for step in (1, 2):
            monitor.log(step, REPORT, TIMING)
        monitor.evaluation(2, make_table(2, 0.8))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "loading [the] model"
    assert lines[1] == "step 0: held-out accuracy 0.100 [0.050, 0.150], greedy 0.100"
    assert lines[2] == (
        "step 1/2  reward 0.250 (format 1.000)  length 12.0  entropy 0.900  1,234 tokens/s  "
        "generate 75% train 25%  left 0:04"
    )
    text = "\n".join(lines)
    assert "before (step 0)" in text
    assert "after (step 2)" in text
    assert "+0.700" in text
    assert "[image] where ?" in text


async def test_twenty_lines_for_a_long_run(make_context, capsys):
    monitor = Console()
    async with monitor.open(make_context(total_steps=200), RECIPE):
        for step in range(1, 201):
            monitor.log(step, REPORT, TIMING)
    steps = [
        line.split()[1] for line in capsys.readouterr().out.splitlines() if line[:5] == "step "
    ]
    assert steps == ["1/200", *(f"{step}/200" for step in range(10, 201, 10))]


async def test_an_error_ends_without_a_table(make_context, make_table, capsys):
    monitor = Console()

    async def run():
        async with monitor.open(make_context(), RECIPE):
            monitor.evaluation(0, make_table(0, 0.1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run()
    assert "before" not in capsys.readouterr().out


async def test_a_resumed_run_remembers_the_first_evaluation(make_context, make_table, capsys):
    rows = Jsonl()
    async with rows.open(make_context(), {}):
        rows.evaluation(0, make_table(0, 0.1))
        rows.evaluation(1, make_table(1, 0.2))
    monitor = Console()
    async with monitor.open(make_context(resuming=True), RECIPE):
        monitor.evaluation(3, make_table(3, 0.9))
    assert "+0.800" in capsys.readouterr().out


async def test_a_finished_run_shows_before_and_after_again(make_context, make_table, capsys):
    rows = Jsonl()
    async with rows.open(make_context(), {}):
        for step, mean in ((0, 0.1), (2, 0.4), (3, 0.9)):
            rows.evaluation(step, make_table(step, mean))
    async with Console().open(make_context(resuming=True), RECIPE):
        pass
    text = capsys.readouterr().out
    assert "after (step 3)" in text
    assert "+0.800" in text


def test_answers_are_paired_by_prompt_not_by_its_text(page, make_table):
    """The same words with two pictures are two questions."""
    tables = [make_table(0, 0.1), make_table(3, 0.9)]
    for table in tables:
        (first,) = table["examples"]
        table["examples"] = [
            first | {"id": f"heldout/{i}", "sampled": f"{i} at {table['step']}", "greedy": None}
            for i in range(2)
        ]
    lines = page(sample_answers(tables)).splitlines()
    (line,) = [line for line in lines if "0 at 3" in line]
    assert "0 at 0" in line


async def test_no_evaluation_no_table(make_context, capsys):
    monitor = Console()
    async with monitor.open(make_context(), RECIPE):
        pass
    assert capsys.readouterr().out.startswith("run folder:")


def test_the_live_panel(page, make_table):
    progress = Progress("demo", total=10)
    assert "starting" in page(progress.render())
    progress.heldout.append(make_table(0, 0.1))
    for step in range(1, 6):
        progress.add(step, REPORT | {"reward/mean": step / 8}, TIMING)
    shown = page(progress.render())
    assert "step 5/10" in shown
    assert "left 0:20" in shown
    assert "0.625 ▁▃▅▆█" in shown
    assert "format 1.000" in shown
    assert "generate 75%  train 25%" in shown
    assert "1,234 tokens/s  4.00 s/step" in shown


def test_a_step_without_any_scored_answer(page):
    progress = Progress("demo", total=10)
    progress.add(1, {"rollout/unscored": 1.0}, {"time/step": 1.0})
    assert "unscored 100%" in page(progress.render())
    assert progress.line() == "step 1/10  left 0:09"
