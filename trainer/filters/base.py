"""Contract of `filters:`: which groups never reach the optimiser."""

from __future__ import annotations

from typing import ClassVar

from trainer.plugin import Plugin
from trainer.types import Group


class Filter(Plugin):
    family: ClassVar[str] = "trainer.filters"

    def why_drop(self, group: Group) -> str | None:
        """A short reason, counted in the report, or None to keep the group (scored, whole)."""
        raise NotImplementedError
