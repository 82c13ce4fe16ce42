"""Between collectors and the optimiser: bounds staleness, keeps order, counts what was dropped.

    collectors --reserve--> [slots] --start--> in flight --put--> ready --take--> optimiser
                               ^                   |                                  |
                               +----- drop --------+            release after publish +

`(max_lag + 1) * groups_per_step` slots exist. Groups are trained in the order of their serials,
so a group that starts when `release` frees its slot is at most `max_lag` versions old when it is
taken. At `max_lag` 0 a dropped group's slot comes back only when nothing is in flight: batches of
the engine, and so the last bits of its numbers, do not depend on timing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.errors import EngineError, NothingPasses
from trainer.types import Group, Prompt


@dataclass(slots=True)
class _Entry:
    prompt: Prompt
    group: Group | None = None


class Buffer:
    """Used from one event loop; every method but `reserve` and `take` returns at once."""

    def __init__(self, groups_per_step: int, max_lag: int, patience: int):
        self.size = groups_per_step
        self.max_lag = max_lag
        self.patience = patience
        self.reasons: Counter[str] = Counter()
        """Why groups were dropped, over the whole run."""
        self.dropped: list[Group] = []
        """Dropped since the last `take`, for curricula and logs."""
        self.slots = (max_lag + 1) * groups_per_step
        self._free = self.slots
        self._held = 0
        self._dropped_in_a_row = 0
        self._entries: dict[int, _Entry] = {}
        self._changed = asyncio.Condition()

    async def reserve(self) -> None:
        """Takes a slot. Waits while `max_lag` could be exceeded; `release` or `drop` unblocks."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._free > 0)
            self._free -= 1

    def start(self, prompt: Prompt) -> None:
        """Marks the prompt of a reserved slot as in flight."""
        self._entries[prompt.serial] = _Entry(prompt)

    async def put(self, group: Group) -> None:
        """A scored group is ready."""
        self._entries[group.prompt.serial].group = group
        self._dropped_in_a_row = 0
        await self._settle()

    async def drop(self, group: Group, reason: str) -> None:
        """A filter refused the group: its slot is used again. Raises `NothingPasses` after
        `patience` in a row."""
        del self._entries[group.prompt.serial]
        self.dropped.append(group)
        self.reasons[reason] += 1
        self._dropped_in_a_row += 1
        if self._dropped_in_a_row >= self.patience:
            raise NothingPasses(
                f"rollouts.filters dropped {self._dropped_in_a_row} groups in a row, so no step "
                f"can be filled. Reasons so far: {histogram(self.reasons)}. Loosen the filter, "
                "make the prompts easier or harder, or raise rollouts.filters_patience"
            )
        self._held += 1
        await self._settle()

    async def take(self) -> list[Group]:
        """The `groups_per_step` groups with the lowest serials, once all of them are scored."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._next() is not None)
            groups = self._next() or []
        for group in groups:
            del self._entries[group.prompt.serial]
        return groups

    async def release(self) -> None:
        """After the new weights are published: lets the next `groups_per_step` prompts start."""
        async with self._changed:
            self._free += self.size
            self._changed.notify_all()

    def drain_dropped(self) -> list[Group]:
        """Groups dropped since the last call, by serial."""
        dropped = sorted(self.dropped, key=lambda group: group.prompt.serial)
        self.dropped = []
        return dropped

    def state_dict(self) -> dict[str, Any]:
        """Ready and dropped groups whole; those in flight by prompt, to be played again."""
        entries = [self._entries[serial] for serial in sorted(self._entries)]
        return {
            "ready": [entry.group for entry in entries if entry.group is not None],
            "dropped": list(self.dropped),
            "in_flight": [entry.prompt for entry in entries if entry.group is None],
            "reasons": dict(self.reasons),
            "dropped_in_a_row": self._dropped_in_a_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> list[Prompt]:
        """Returns the prompts that were in flight; they must be the next ones to start."""
        for group in state["ready"]:
            self._entries[group.prompt.serial] = _Entry(group.prompt, group)
        self._free -= len(state["ready"])
        self.dropped = list(state["dropped"])
        self.reasons = Counter(state["reasons"])
        self._dropped_in_a_row = state["dropped_in_a_row"]
        return state["in_flight"]

    def _next(self) -> list[Group] | None:
        first = sorted(self._entries)[: self.size]
        groups = [self._entries[serial].group for serial in first]
        whole = len(groups) == self.size and None not in groups
        return [group for group in groups if group is not None] if whole else None

    async def _settle(self) -> None:
        async with self._changed:
            in_flight = any(entry.group is None for entry in self._entries.values())
            if self.max_lag > 0 or not in_flight:
                self._free += self._held
                self._held = 0
            self._changed.notify_all()


def check_lag(groups: Sequence[Group], version: int, max_lag: int) -> None:
    """Raises `EngineError` if a token was sampled by weights older than `version - max_lag`. The
    slots make that impossible, unless an engine serves other weights than it was given."""
    for group in groups:
        versions = [v for r in group.rollouts for s in r.spans for v in s.version if v >= 0]
        oldest = min(versions, default=version)
        if oldest < version - max_lag:
            raise EngineError(
                f"prompt {group.prompt.id!r} (serial {group.prompt.serial}) has tokens sampled by "
                f"weights of version {oldest}; this step trains version {version} and "
                f"rollouts.max_lag is {max_lag}: a worker did not take the last weights"
            )


def histogram(counts: Counter[str]) -> str:
    """`zero_variance 12, overlong 3`; `none` if there is nothing to count."""
    return ", ".join(f"{reason} {n}" for reason, n in counts.most_common()) or "none"
