"""Numbers of a run as rich renderables: what the live display and `cohort show` have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

PHASES = {
    "generate": "cyan",
    "reward": "yellow",
    "logprob": "blue",
    "train": "green",
    "sync": "magenta",
    "evaluate": "bright_blue",
    "log": "bright_magenta",
    "save": "bright_black",
    "idle": "red",
}
"""Phase of a step and its colour, in order."""

Figures = Mapping[str, Any]


def duration(seconds: float) -> str:
    """`0:42`, `12:05`, `3:04:10`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def reward_parts(report: Figures) -> dict[str, float]:
    """The components of the reward in a report."""
    return {
        key.removeprefix("reward/"): value
        for key, value in report.items()
        if key.startswith("reward/") and key not in ("reward/mean", "reward/std")
    }


def phase_shares(timing: Figures) -> dict[str, float]:
    """Share of the step's wall time by phase, phases under half a percent left out."""
    spent = {phase: timing.get(f"time/{phase}", 0.0) for phase in PHASES}
    total = sum(spent.values())
    return {p: s / total for p, s in spent.items() if total and s / total >= 0.005}


def phase_bar(timing: Figures, width: int = 30) -> Text:
    """A coloured bar of where the time of a step went, then its legend."""
    text, drawn, passed = Text(), 0, 0.0
    shares = phase_shares(timing)
    for phase, share in shares.items():
        passed += share
        cells = round(passed * width) - drawn
        text.append("█" * cells, PHASES[phase])
        drawn += cells
    for phase, share in shares.items():
        text.append(f"  {phase} ", PHASES[phase]).append(f"{share:.0%}")
    return text


def interval(figures: Figures | None) -> str:
    """`0.330 [0.280, 0.382]`."""
    if not figures:
        return "-"
    return f"{figures['mean']:.3f} [{figures['low']:.3f}, {figures['high']:.3f}]"


def evaluation_table(tables: Sequence[Figures]) -> Table:
    """The first and the last of some evaluations side by side."""
    first, last = tables[0], tables[-1]
    shown = [first] if first["step"] == last["step"] else [first, last]
    table = Table(
        title=f"held-out {last['name']}",
        title_style="bold",
        caption=f"{last['sampled']['n']} prompts, 95 % bootstrap interval",
    )
    table.add_column("")
    for label, one in zip(("before", "after"), shown, strict=False):
        table.add_column(
            f"{label} (step {one['step']})" if len(shown) > 1 else f"step {one['step']}"
        )
    if len(shown) > 1:
        table.add_column("change", justify="right")
    for name, values in _rows(shown):
        cells: list[Text | str] = [interval(value) for value in values]
        if len(shown) > 1:
            cells.append(_change(*values))
        table.add_row(name, *cells)
    return table


def _rows(tables: Sequence[Figures]) -> list[tuple[str, list[Figures | None]]]:
    rows = [(kind, [table[kind] for table in tables]) for kind in ("sampled", "greedy")]
    for key in ("parts", "figures"):
        for name in tables[-1].get(key, {}):
            parts = [table.get(key, {}).get(name, {}) for table in tables]
            kinds = ("sampled", "greedy")
            rows += [(f"{name}, {kind}", [part.get(kind) for part in parts]) for kind in kinds]
    for kind in ("pass@k", "maj@k", "best@k", "vote@k"):
        by_k = [{str(k): v for k, v in table.get(kind, {}).items()} for table in tables]
        rows += [
            (f"{kind.removesuffix('k')}{k}", [values.get(k) for values in by_k])
            for k in by_k[-1]
            if k != "1"  # the sampled mean, where rewards are 0 or 1
        ]
    return [row for row in rows if any(row[1])]


def _change(first: Figures | None, last: Figures | None) -> Text | str:
    if not first or not last:
        return ""
    change = last["mean"] - first["mean"]
    return Text(f"{change:+.3f}", "green" if change > 0 else "red" if change < 0 else "")


def sample_answers(tables: Sequence[Figures], limit: int = 3) -> Table | None:
    """Questions with the answers before and after; None if there are none."""
    first, last = tables[0], tables[-1]
    if not last["examples"]:
        return None
    before = {row["id"]: row for row in first["examples"]}
    both = first["step"] != last["step"]
    table = Table(title="sample answers", title_style="bold")
    table.add_column("question", overflow="fold", ratio=2)
    table.add_column("")
    if both:
        table.add_column(f"before (step {first['step']})", overflow="fold", ratio=3)
    table.add_column(f"after (step {last['step']})" if both else "answer", overflow="fold", ratio=3)
    for row in last["examples"][:limit]:
        cells = [Text(_short(row["prompt"])), Text(f"gold: {row['answer']}", "dim")]
        kinds = [kind for kind in ("sampled", "greedy") if row[kind] is not None]
        for kind, left in zip(kinds, cells, strict=False):
            shown = [before.get(row["id"]), row] if both else [row]
            answers = [_answer(one, kind) for one in shown]
            if len(kinds) == 1:
                left = Text("\n").join(cells)
            table.add_row(left, kind, *answers, end_section=kind == kinds[-1])
    return table


def _answer(row: Figures | None, kind: str) -> Text:
    if row is None or row[kind] is None:
        return Text()
    text = Text(_short(row[kind]))
    if kind == "sampled" and row["reward"] is not None:
        text.append(f"  reward {row['reward']:.2f}", "dim")
    return text


def _short(text: str, limit: int = 240) -> str:
    """The end of a long text: the answer stands there."""
    text = text.strip().replace("\n", " ⏎ ")
    return text if len(text) <= limit else f"… {text[-limit:]}"
