"""`curves.png` of a run folder, from its jsonl files alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.monitors.base import read_rows
from trainer.ops.panels import reward_parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMALL = (
    ("reward parts", None),
    ("entropy (nats)", ("train/entropy",)),
    ("gradient norm", ("train/grad_norm",)),
    ("answer length (tokens)", ("rollout/length_mean", "rollout/length_max")),
    ("clipped share", ("train/clip_low", "train/clip_high")),
    ("KL divergence", ("train/kl_ref", "train/approx_kl")),
    (
        "shares of rollouts and groups",
        ("rollout/truncated", "group/zero_variance", "rollout/unscored"),
    ),
    ("value and return", ("critic/value_mean", "critic/return_mean")),
    ("explained variance of returns", ("critic/explained_variance",)),
    ("train / engine log-prob gap", ("sync/probe_gap", "train/logprob_gap_max")),
)
"""Title and metrics of the small plots; those without data are left out."""

BLUE, ORANGE, GREY = "#2563eb", "#ea580c", "#9ca3af"


def draw_curves(folder: Path) -> Path | None:
    """Writes `folder/curves.png` and returns its path; None if nothing was logged yet."""
    rows = list(read_rows(folder / "metrics.jsonl"))
    tables = list(read_rows(folder / "evaluations.jsonl"))
    if not rows and not tables:
        return None
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    small = [(title, keys) for title, keys in (_present(s, rows) for s in SMALL) if keys]
    lines = -(-len(small) // 4)
    style: dict[Any, Any] = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "font.size": 9,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(12, 3.6 + 1.9 * lines), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(folder.resolve().name, fontsize=12, fontweight="bold")
        grid = figure.add_gridspec(1 + lines, 4, height_ratios=[2, *([1.05] * lines)])
        _reward(figure.add_subplot(grid[0, :2] if tables else grid[0, :]), rows)
        if tables:
            last = max(row["step"] for row in [*rows, *tables])
            _heldout(figure.add_subplot(grid[0, 2:]), tables, last)
        for index, (title, keys) in enumerate(small):
            _small(figure.add_subplot(grid[1 + index // 4, index % 4]), rows, title, keys)
        path = folder / "curves.png"
        figure.savefig(path)
    return path


def smooth(values: Sequence[float], span: int | None = None) -> list[float]:
    """Centred moving mean over `span` values (default: a tenth of them), shorter at the ends."""
    half = (span or max(1, len(values) // 10)) // 2
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _present(entry: tuple[str, Any], rows: list[dict[str, Any]]) -> tuple[str, list[str]]:
    title, keys = entry
    logged = {key for row in rows for key, value in row.items() if value is not None}
    if keys is None:
        keys = [f"reward/{name}" for name in sorted(reward_parts(dict.fromkeys(logged, 0.0)))][:6]
    return title, [key for key in keys if key in logged]


def _tidy(axes: Axes) -> None:
    """Whole steps on the one axis, a short power of ten at the other."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    formatter = ScalarFormatter(useMathText=True)
    formatter.set_powerlimits((-3, 4))
    axes.yaxis.set_major_formatter(formatter)
    axes.yaxis.get_offset_text().set_fontsize(7)


def _series(rows: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return [step for step, _ in points], [value for _, value in points]


def _reward(axes: Axes, rows: list[dict[str, Any]]) -> None:
    steps, means = _series(rows, "reward/mean")
    axes.set_title("training reward")
    axes.set_xlabel("step")
    axes.plot(steps, means, color=GREY, lw=0.9, alpha=0.7, label="mean of the step")
    axes.plot(steps, smooth(means), color=BLUE, lw=2, label="smoothed")
    _tidy(axes)
    if steps:
        axes.legend(frameon=False, loc="best")


def _heldout(axes: Axes, tables: list[dict[str, Any]], last: int) -> None:
    axes.set_title(f"held-out {tables[-1]['name']} (95 % bootstrap interval)")
    axes.set_xlabel("step")
    for kind, colour in (("sampled", BLUE), ("greedy", ORANGE)):
        points = [(table["step"], table[kind]) for table in tables if table[kind]]
        if not points:
            continue
        steps = [step for step, _ in points]
        low = [figures["low"] for _, figures in points]
        high = [figures["high"] for _, figures in points]
        means = [figures["mean"] for _, figures in points]
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, lw=0)
        axes.vlines(steps, low, high, color=colour, alpha=0.4, lw=1)
        axes.plot(steps, means, color=colour, lw=2, marker="o", ms=4, label=kind)
        for at in {0, len(points) - 1}:
            axes.annotate(
                f"{means[at]:.2f}",
                (steps[at], means[at]),
                textcoords="offset points",
                xytext=(0, 7),
                ha="center",
                color=colour,
            )
    axes.margins(y=0.15)
    _tidy(axes)
    axes.set_xlim(-0.06 * max(last, 1), 1.06 * max(last, 1))
    axes.legend(frameon=False, loc="best")


def _small(axes: Axes, rows: list[dict[str, Any]], title: str, keys: list[str]) -> None:
    axes.set_title(title, fontsize=9)
    _tidy(axes)
    for key in keys:
        steps, values = _series(rows, key)
        name = key.rpartition("/")[2].replace("_", " ")
        axes.plot(steps, values, lw=1.2, label=name, color=BLUE if len(keys) == 1 else None)
    if len(keys) > 1:
        axes.legend(frameon=False, fontsize=7, loc="best")
