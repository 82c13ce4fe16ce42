"""`cohort show RUN`: what a run folder holds, as one page of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from trainer.errors import DataError
from trainer.monitors.base import read_rows
from trainer.ops.panels import duration, evaluation_table, phase_bar, reward_parts, sample_answers
from trainer.ops.sparkline import Sparkline
from trainer.run_folder import RESOLVED
from trainer.yaml import read_yaml

ESSENTIALS = (
    "model",
    "policy",
    "engine",
    "prompts",
    "reward",
    "advantage",
    "loss",
    "modifiers",
    "critic",
    "seed",
)
CURVES = (
    "reward/mean",
    "reward/std",
    "rollout/length_mean",
    "rollout/truncated",
    "score/faults",
    "train/loss",
    "train/entropy",
    "train/kl_ref",
    "train/grad_norm",
    "train/clip_low",
    "train/clip_high",
    "critic/explained_variance",
    "critic/value_mean",
    "critic/return_mean",
    "critic/value_error",
    "critic/grad_norm",
    "train/value_error",
    "train/logprob_gap_max",
    "sync/probe_gap",
)
"""Metrics shown first; `reward/` parts follow."""


def show_run(folder: Path) -> RenderableType:
    """Settings, curves, evaluations, faults, best and worst answers, checkpoints.

    Raises `DataError` if `folder` is not a run folder.
    """
    if not (folder / RESOLVED).is_file():
        inside = sorted(p.parent.name for p in folder.glob(f"*/{RESOLVED}"))
        hint = f"; runs in it: {', '.join(inside)}" if inside else ""
        raise DataError(f"{folder} is not a run folder (no {RESOLVED}){hint}")
    recipe = read_yaml(folder / RESOLVED)
    metrics = list(read_rows(folder / "metrics.jsonl"))
    timings = list(read_rows(folder / "timings.jsonl"))
    tables = list(read_rows(folder / "evaluations.jsonl"))
    return Group(*_page(folder, recipe, metrics, timings, tables))


def _page(
    folder: Path,
    recipe: dict[str, Any],
    metrics: list[dict[str, Any]],
    timings: list[dict[str, Any]],
    tables: list[dict[str, Any]],
) -> Iterator[RenderableType]:
    done = metrics[-1]["step"] if metrics else 0
    yield Rule(f"{recipe['name']} · {recipe['stage']} · step {done} of {recipe['steps']}")
    if recipe.get("description"):
        yield Text(recipe["description"], "dim")
    yield _essentials(recipe)
    if metrics:
        yield Text()
        yield _curves(metrics)
    if timings:
        yield Text()
        yield _time(timings)
    if tables:
        yield Text()
        yield evaluation_table(tables)
        if (samples := sample_answers(tables)) is not None:
            yield samples
    yield from _rollouts(folder, done)
    steps = sorted(p.name for p in (folder / "checkpoints").glob("step_*"))
    yield Text(f"\ncheckpoints: {', '.join(steps) or 'none yet'}")
    if not metrics:
        yield Text("no step is logged yet")


def _essentials(recipe: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for key in ESSENTIALS:
        if recipe.get(key) not in ([], None):
            table.add_row(key, Text(_brief(recipe[key])))
    rollouts, learner = recipe["rollouts"], recipe["learner"]
    batch = f"{rollouts['groups_per_step']} prompts x {rollouts['group_size']} answers"
    table.add_row("batch", f"{batch}, {learner['minibatches']} minibatches x {learner['epochs']}")
    table.add_row(
        "lr", f"{learner['lr']:g}, {learner['schedule']}, warm-up {learner['warmup_steps']}"
    )
    return table


def _brief(value: Any) -> str:
    """A plug-in as `grpo (eps 1e-06)`; long values are left out."""
    if isinstance(value, list):
        return ", ".join(map(_brief, value))
    if isinstance(value, dict) and "learner" in value:  # a critic
        first = f", alone for {value['warmup_steps']} steps" if value["warmup_steps"] else ""
        return f"{_brief(value['loss'])}, lr {value['learner']['lr']:g}{first}"
    if not isinstance(value, dict) or "type" not in value:
        return str(value)
    settings = {k: _brief(v) for k, v in value.items() if k != "type" and _is_short(v)}
    text = ", ".join(f"{key} {setting}" for key, setting in settings.items())
    return f"{value['type']} ({text})" if text else value["type"]


def _is_short(value: Any) -> bool:
    if isinstance(value, dict):
        return "type" in value
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _curves(metrics: list[dict[str, Any]]) -> Table:
    logged = {key for row in metrics for key, v in row.items() if isinstance(v, int | float)}
    parts = [f"reward/{name}" for name in sorted(reward_parts(dict.fromkeys(logged, 0.0)))]
    keys = [key for key in CURVES if key in logged] + parts
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("metric", no_wrap=True, min_width=max(map(len, keys)))
    for name in ("first", "last", "min", "max"):
        table.add_column(name, justify="right")
    table.add_column(f"steps {metrics[0]['step']}-{metrics[-1]['step']}")
    for key in keys:
        values = [row[key] for row in metrics if row.get(key) is not None]
        figures = (values[0], values[-1], min(values), max(values))
        table.add_row(key, *(f"{v:.4g}" for v in figures), Sparkline(values))
    return table


def _time(timings: list[dict[str, Any]]) -> Table:
    total: Counter[str] = Counter()
    for row in timings:
        total.update({key: row[key] for key in row if key.startswith("time/")})
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("time", phase_bar(total))
    spent, n = total["time/step"], len(timings)
    rate = sum(row.get("tokens_per_second", 0.0) for row in timings) / n
    table.add_row(
        "", f"{duration(spent)} in {n} steps, {spent / n:.2f} s a step, {rate:,.0f} tokens/s"
    )
    return table


def _rollouts(folder: Path, done: int) -> Iterator[RenderableType]:
    faults: Counter[str] = Counter()
    endings: Counter[str] = Counter()
    last: list[dict[str, Any]] = []
    newest, count = 0, 0
    for row in read_rows(folder / "rollouts.jsonl"):
        count += 1
        endings[row["status"]] += 1
        if row["scored"] not in (None, "ok"):
            faults[f"{row['scored']}: {row.get('reason', '')[:60]}".rstrip(": ")] += 1
        if row["step"] != newest:
            newest, last = row["step"], []
        if row["reward"] is not None:
            last.append(row)
    if not count:
        return
    ended = ", ".join(f"{name} {n}" for name, n in endings.most_common())
    yield Text(f"\n{count} rollouts: {ended}")
    if faults:
        yield Text(
            "scoring, other than ok: " + "; ".join(f"{k} ({n})" for k, n in faults.most_common(5))
        )
    last.sort(key=lambda row: row["reward"])
    chosen = last if len(last) <= 4 else [*last[:2], *last[-2:]]
    if chosen:
        table = Table(title=f"worst and best answers of step {newest}", title_style="bold")
        for name in ("reward", "question", "answer", "gold"):
            table.add_column(name, overflow="fold")
        for row in chosen:
            cells = (row["prompt"], row["reply"], str(row["answer"]))
            table.add_row(f"{row['reward']:.3f}", *(Text(cell.strip()[-300:]) for cell in cells))
        yield table
