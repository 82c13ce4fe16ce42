"""The live display of a run: a few numbers kept, one panel drawn."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from trainer.ops.panels import duration, phase_bar, phase_shares, reward_parts
from trainer.ops.sparkline import sparkline

DETAILS = {
    "train/entropy": "entropy {:.3f}",
    "train/grad_norm": "grad norm {:.3g}",
    "train/clip_low": "clipped low {:.1%}",
    "train/clip_high": "high {:.1%}",
    "train/kl_ref": "KL {:.4f}",
    "critic/explained_variance": "explained variance {:.2f}",
    "critic/value_error": "value error {:.3g}",
    "train/value_error": "value error {:.3g}",
    "rollout/length_mean": "length {:.1f}",
    "rollout/truncated": "truncated {:.0%}",
    "rollout/unscored": "unscored {:.0%}",
    "score/faults": "faults {:.0f}",
    "group/zero_variance": "no-signal groups {:.0%}",
}
"""What the line of details shows, if the report has it."""

RECENT = 20
"""Steps that the estimate of the time left looks back on."""


class Progress:
    """`add` each step; `render` for a terminal, `line` for a log file. `doing` is what the run
    does now; `heldout` its evaluations."""

    def __init__(self, title: str, total: int):
        self.title, self.total = title, total
        self.step = 0
        self.doing = "starting"
        self.heldout: list[Mapping[str, Any]] = []
        self._rewards: list[float] = []
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._report: Mapping[str, Any] = {}
        self._timing: Mapping[str, float] = {}
        self._spinner = Spinner("dots", style="cyan")
        self._since = time.monotonic()

    def add(self, step: int, report: Mapping[str, Any], timing: Mapping[str, float]) -> None:
        self.step, self._report, self._timing = step, report, timing
        self.doing = "training"
        if "reward/mean" in report:
            self._rewards.append(report["reward/mean"])
        if "time/step" in timing:
            self._seconds.append(timing["time/step"])

    @property
    def left(self) -> float | None:
        """Seconds to the last step, from the mean of the recent ones."""
        if not self._seconds:
            return None
        return sum(self._seconds) / len(self._seconds) * (self.total - self.step)

    def line(self) -> str:
        """One step as plain text."""
        parts = "".join(f" {k} {v:.3f}" for k, v in reward_parts(self._report).items())
        words = [f"step {self.step}/{self.total}"]
        if "reward/mean" in self._report:
            words.append(f"reward {self._report['reward/mean']:.3f}{parts and f' ({parts[1:]})'}")
        words += self._details(
            "rollout/length_mean", "train/entropy", "train/grad_norm", "critic/explained_variance"
        )
        if "tokens_per_second" in self._timing:
            words.append(f"{self._timing['tokens_per_second']:,.0f} tokens/s")
        words.append(" ".join(f"{p} {s:.0%}" for p, s in phase_shares(self._timing).items()))
        if self.left is not None:
            words.append(f"left {duration(self.left)}")
        return "  ".join(word for word in words if word)

    def render(self) -> RenderableType:
        """The panel, as it is now."""
        head = Table.grid(expand=True, padding=(0, 1))
        head.add_column(no_wrap=True)
        head.add_column(ratio=1)
        head.add_column(justify="right", no_wrap=True)
        left = f"left {duration(self.left)}" if self.left is not None else ""
        spent = duration(time.monotonic() - self._since)
        head.add_row(
            Text(self.title, "bold"),
            ProgressBar(total=self.total, completed=self.step),
            Text(f"step {self.step}/{self.total}  {spent}  {left}"),
        )
        body = Table.grid(padding=(0, 2))
        body.add_column(style="dim", no_wrap=True)
        body.add_column()
        if self._rewards:
            body.add_row("reward", self._reward())
        if self.heldout:
            body.add_row("held-out", self._heldout())
        if self._timing:
            rate = self._timing.get("tokens_per_second", 0.0)
            body.add_row("speed", f"{rate:,.0f} tokens/s  {self._timing['time/step']:.2f} s/step")
            body.add_row("time", phase_bar(self._timing))
        if details := self._details(*DETAILS):
            body.add_row("details", "  ".join(details))
        self._spinner.update(text=Text(self.doing, "dim"))
        return Group(Text(), head, body, self._spinner if self.step < self.total else Text())

    def _reward(self) -> Text:
        text = Text(f"{self._rewards[-1]:.3f} ", "bold").append(sparkline(self._rewards), "cyan")
        for name, value in reward_parts(self._report).items():
            text.append(f"  {name} ", "dim").append(f"{value:.3f}")
        return text

    def _heldout(self) -> Text:
        means = " → ".join(f"{t['sampled']['mean']:.3f}" for t in self.heldout[-4:])
        last = self.heldout[-1]
        text = Text(f"{last['name']} ", "dim").append(means, "bold")
        if last["greedy"]:
            text.append("  greedy ", "dim").append(f"{last['greedy']['mean']:.3f}")
        return text.append(f"  (step {last['step']})", "dim")

    def _details(self, *keys: str) -> list[str]:
        return [DETAILS[key].format(self._report[key]) for key in keys if key in self._report]
