"""Contract of `monitors:`: where numbers go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.plugin import Plugin

if TYPE_CHECKING:
    from trainer.context import Context
    from trainer.types import Group


class Monitor(Plugin):
    """Opened on rank 0 only. Keys of a report are `family/name`, values float, int or str.

    `report` holds only what the recipe decides (equal in every repetition of a run); `timing`
    holds wall-clock figures: seconds by phase, tokens per second, memory.
    """

    family: ClassVar[str] = "trainer.monitors"

    @asynccontextmanager
    async def open(self, context: Context, recipe: dict[str, Any]) -> AsyncIterator[None]:
        """`recipe`: the resolved recipe, as saved."""
        yield

    def log(self, step: int, report: dict[str, Any], timing: dict[str, float]) -> None:
        """After every step."""

    def rollouts(self, step: int, groups: list[Group]) -> None:
        """The scored groups of a step, also the dropped ones."""

    def evaluation(self, step: int, table: dict[str, Any]) -> None:
        """After every evaluation; see `trainer.evaluate.Table`."""

    def note(self, text: str) -> None:
        """A line for people: what is being done now."""
