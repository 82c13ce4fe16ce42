"""Where the wall time of a step goes: each moment belongs to one phase, so the phases add up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

PHASES: tuple[str, ...] = (
    "generate",
    "reward",
    "logprob",
    "train",
    "sync",
    "evaluate",
    "log",
    "save",
    "idle",
)


class Clock:
    """The optimiser's phases win; while it waits, a moment counts as `generate` if anything is
    being sampled, else as `reward` if anything is being scored, else as `idle`."""

    def __init__(self) -> None:
        self._main: str | None = None
        self._running = {"generate": 0, "reward": 0}
        self._spent = dict.fromkeys(PHASES, 0.0)
        self._since = time.perf_counter()

    @contextmanager
    def main(self, phase: str) -> Iterator[None]:
        """The optimiser is in `phase`."""
        self._tick()
        outer, self._main = self._main, phase
        try:
            yield
        finally:
            self._tick()
            self._main = outer

    @contextmanager
    def beside(self, phase: str) -> Iterator[None]:
        """One more collector is in `phase` (generate or reward)."""
        self._tick()
        self._running[phase] += 1
        try:
            yield
        finally:
            self._tick()
            self._running[phase] -= 1

    def lap(self) -> dict[str, float]:
        """Seconds per phase since the last lap."""
        self._tick()
        spent, self._spent = self._spent, dict.fromkeys(PHASES, 0.0)
        return spent

    def _tick(self) -> None:
        now = time.perf_counter()
        phase = self._main or next((p for p, n in self._running.items() if n), "idle")
        self._spent[phase] += now - self._since
        self._since = now
