"""What a person sees: live progress in a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr

from trainer.monitors.base import Monitor, read_rows

if TYPE_CHECKING:
    from trainer.context import Context
    from trainer.ops.progress import Progress


class Console(Monitor):
    """Step, reward and its parts, tokens per second, where the time goes, time left. When the run
    is over: held-out results before and after, with sample answers."""

    every: int = Field(0, ge=0)
    """Steps between plain lines where there is no terminal; 0 gives about 20 lines a run."""

    _progress: Progress = PrivateAttr()
    _live: bool = PrivateAttr(default=False)
    _out: Any = PrivateAttr(default=None)
    _tables: list[dict[str, Any]] = PrivateAttr(default_factory=list)

    @asynccontextmanager
    async def open(self, context: Context, recipe: dict[str, Any]) -> AsyncIterator[None]:
        from rich.console import Console as Terminal
        from rich.live import Live

        from trainer.ops.progress import Progress

        self._out = Terminal()
        self._live = self._out.is_terminal
        title = (
            recipe["name"] if recipe["stage"] == "rl" else f"{recipe['name']} · {recipe['stage']}"
        )
        self._progress = progress = Progress(title, context.total_steps)
        self._tables = []
        live = Live(get_renderable=progress.render, console=self._out, refresh_per_second=4)
        with live if self._live else nullcontext():
            yield
            progress.doing = "done"
        self._close(context)

    def log(self, step: int, report: dict[str, Any], timing: dict[str, float]) -> None:
        self._progress.add(step, report, timing)
        every = self.every or max(1, self._progress.total // 20)
        if not self._live and (step % every == 0 or step in (1, self._progress.total)):
            self._say(self._progress.line())

    def evaluation(self, step: int, table: dict[str, Any]) -> None:
        from trainer.ops.panels import interval

        self._tables = [*self._tables[:1], table]
        self._progress.heldout.append(table)
        greedy = f", greedy {table['greedy']['mean']:.3f}" if table["greedy"] else ""
        if not self._live:
            self._say(f"step {step}: held-out {table['name']} {interval(table['sampled'])}{greedy}")

    def note(self, text: str) -> None:
        self._progress.doing = text
        self._say(text)

    def _say(self, text: str) -> None:
        # soft_wrap: a line of a log file stays one line whatever width rich assumes
        self._out.print(
            text, style="dim" if self._live else "", highlight=False, markup=False, soft_wrap=True
        )

    def _close(self, context: Context) -> None:
        from trainer.ops.panels import evaluation_table, sample_answers

        # The rows of the run folder know what earlier attempts measured.
        logged = [*read_rows(context.folder / "evaluations.jsonl"), *self._tables]
        by_step = {table["step"]: table for table in logged}
        if tables := [by_step[step] for step in sorted(by_step)]:
            self._out.print()
            self._out.print(evaluation_table(tables))
            if (samples := sample_answers(tables)) is not None:
                self._out.print(samples)
        self._say(f"run folder: {context.folder}")
