"""Fans out to the monitors of a run; on other processes than rank 0 there are none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from trainer.monitors.base import Monitor, truncate_after

if TYPE_CHECKING:
    from trainer.config import Recipe
    from trainer.context import Context
    from trainer.types import Group


class Monitors:
    """Same calls as a `Monitor`."""

    def __init__(self, monitors: Sequence[Monitor], context: Context):
        self._monitors = monitors
        self._context = context

    @classmethod
    @asynccontextmanager
    async def open(
        cls, monitors: Sequence[Monitor], context: Context, recipe: Recipe
    ) -> AsyncIterator[Monitors]:
        async with AsyncExitStack() as stack:
            for monitor in monitors:
                resolved = recipe.model_dump(mode="json")
                await stack.enter_async_context(monitor.open(context, resolved))
            yield cls(monitors, context)

    def truncate_after(self, step: int) -> None:
        """Removes what an earlier attempt logged beyond the step that is continued from."""
        if self._context.rank == 0:
            truncate_after(self._context.folder, step)

    def log(self, step: int, report: dict[str, Any], timing: dict[str, float]) -> None:
        for monitor in self._monitors:
            monitor.log(step, report, timing)

    def rollouts(self, step: int, groups: list[Group]) -> None:
        for monitor in self._monitors:
            monitor.rollouts(step, groups)

    def traces(self, step: int, traces: list[dict[str, Any]]) -> None:
        for monitor in self._monitors:
            if monitor.tracing is not None:
                monitor.traces(step, traces)

    def evaluation(self, step: int, table: dict[str, Any]) -> None:
        for monitor in self._monitors:
            monitor.evaluation(step, table)

    def note(self, text: str) -> None:
        for monitor in self._monitors:
            monitor.note(text)
