"""What rewards that run model-written code have in common: a sandbox, open while they grade."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, TypeVar

from pydantic import PrivateAttr

from trainer.context import Context
from trainer.ops.fork_server import NOTHING, First
from trainer.ops.sandbox import Cell, Outcome, Sandbox
from trainer.rewards.base import PointwiseReward

T = TypeVar("T")


class SandboxedReward(PointwiseReward):
    """Opening it proves the isolation, before a run begins; each worker has a cell of its own.
    Raises MissingService where isolation does not hold."""

    runs: ClassVar[int] = 1
    """Runs of code, one after the other, in the grading of one rollout."""

    remembered: ClassVar[int] = 256
    """Results that a worker keeps; few where they are pictures."""

    driver: ClassVar[ModuleType | None] = None
    """A module of ours that `drive` runs inside, and whose `prepare` runs once, ahead."""

    sandbox: Sandbox = Sandbox()

    _cell: Cell | None = PrivateAttr(None)
    _known: dict[Hashable, Any] = PrivateAttr(default_factory=dict)

    @property
    def own_seconds(self) -> float:
        return self.runs * self.sandbox.seconds

    def proven(self, first: First = NOTHING) -> Cell:
        """A cell whose walls were tried. Subclasses look for what else they need. Raises
        MissingService."""
        return self.sandbox.open(first)

    def first(self) -> First:
        """What is done once in each worker, ahead of all runs of code."""
        return First(_source(self.driver)) if self.driver else NOTHING

    def ready(self) -> None:
        self.proven()

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        await asyncio.to_thread(self.ready)
        yield

    def warm(self) -> None:
        self._cell = self.proven(self.first())

    @property
    def cell(self) -> Cell:
        """Where code runs in this process."""
        if self._cell is None:
            self.warm()
        assert self._cell is not None
        return self._cell

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()` where `key` is asked for the first time, remembered for the row's other
        rollouts: what is right, and what equal replies came to."""
        if key not in self._known:
            found = make()
            if len(self._known) >= self.remembered:
                self._known.clear()
            self._known[key] = found
        return self._known[key]

    def drive(
        self,
        request: dict[str, Any],
        *,
        packages: bool = False,
        shows: tuple[Path, ...] = (),
        seconds: float | None = None,
    ) -> Outcome:
        """Runs the driver inside, on a request that holds what the model wrote; the rest as
        `Cell.run`."""
        assert self.driver is not None
        source = _source(self.driver)
        return self.cell.run(
            source, request=request, packages=packages, shows=shows, seconds=seconds
        )


def _source(module: ModuleType) -> str:
    return Path(str(module.__file__)).read_text(encoding="utf-8")
