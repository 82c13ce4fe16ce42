"""Curves and the summary page, from row files of whole, cut and empty runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from trainer.curves import draw_curves, smooth
from trainer.errors import DataError
from trainer.ops.sparkline import Sparkline, sparkline
from trainer.show import show_run
from trainer.yaml import dump_recipe, load_recipe


@pytest.fixture
def folder(tmp_path):
    """A run folder with five steps and two evaluations."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: demo\nsteps: 5\nmodel: tiny_text\nprompts: synthetic/arithmetic\n"
        "reward: text/exact\n"
    )
    folder = tmp_path / "demo"
    (folder / "checkpoints" / "step_000005").mkdir(parents=True)
    (folder / "config.resolved.yaml").write_text(dump_recipe(load_recipe(recipe)[0]))
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 20}
    table = {"name": "accuracy", "greedy": None, "pass@k": {}, "maj@k": {}, "examples": []}
    rows = {
        "metrics": [
            {"step": s, "reward/mean": s / 5 if s != 3 else None, "train/entropy": 1 / s}
            for s in range(1, 6)
        ],
        "timings": [{"step": s, "time/train": 1.0, "time/step": 1.0} for s in range(1, 6)],
        "evaluations": [table | {"step": s, "sampled": interval} for s in (0, 5)],
        "rollouts": [
            {
                "step": s,
                "prompt": f"what is [b]{i}[/b] ?",
                "reply": f"reply {i}",
                "answer": "gold",
                "reward": None if i == 0 else i / 10,
                "status": "ok",
                "scored": "raised" if i == 0 else "ok",
                **({"reason": "ValueError: x"} if i == 0 else {}),
            }
            for s in (4, 5)
            for i in range(6)
        ],
    }
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    return folder


def page(folder: Path) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(show_run(folder))
    return out.getvalue()


def test_curves_of_a_run(folder):
    path = draw_curves(folder)
    assert path == folder / "curves.png"
    with Image.open(path) as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50  # lines were drawn


def test_curves_of_a_cut_run(folder):
    path = folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    (folder / "evaluations.jsonl").unlink()
    assert draw_curves(folder).stat().st_size > 10_000


def test_curves_before_the_first_step(folder):
    (folder / "metrics.jsonl").unlink()
    assert draw_curves(folder).stat().st_size > 5_000
    (folder / "evaluations.jsonl").unlink()
    assert draw_curves(folder) is None


def test_smooth():
    assert smooth([1.0, 2.0, 6.0], span=3) == [1.5, 3.0, 4.0]
    assert smooth([1.0, 2.0]) == [1.0, 2.0]
    assert smooth([]) == []


def test_sparkline():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 0, 7, 7], width=2) == "▁█"
    assert sparkline([3.0, 3.0]) == "▁▁"
    assert sparkline([]) == ""


def test_show(folder):
    text = page(folder)
    for expected in (
        "demo · rl · step 5 of 5",
        "tiny_text",
        "8 prompts x 8 answers",
        "0:05 in 5 steps",
        "before (step 0)",
        "12 rollouts: ok 12",
        "raised: ValueError: x (2)",
        "what is [b]5[/b] ?",
        "step_000005",
    ):
        assert expected in text, expected
    assert text.index("reply 1") < text.index("reply 5")  # worst first
    assert "reply 3" not in text


def test_show_of_a_run_that_just_started(folder):
    for path in folder.glob("*.jsonl"):
        path.unlink()
    assert "no step is logged yet" in page(folder)


def test_show_of_another_folder_names_the_runs_inside(folder):
    with pytest.raises(DataError, match=r"not a run folder.*runs in it: demo"):
        show_run(folder.parent)


@pytest.mark.parametrize(("width", "bars"), [(80, 40), (20, 20), (5, 5)])
def test_a_sparkline_fills_its_place_and_no_more(width, bars):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(Sparkline([float(i) for i in range(100)]))
    assert console.file.getvalue() == sparkline([float(i) for i in range(100)], bars) + "\n"
