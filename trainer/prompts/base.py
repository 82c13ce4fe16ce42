"""Contract of `prompts:`: where questions come from, in which order, and how to come back to it.

A source gives rows; the base turns them into a deterministic, resumable stream of `Prompt`s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from trainer.plugin import Plugin

if TYPE_CHECKING:
    from trainer.types import Group, Prompt

Split = Literal["train", "heldout"]


class Stream(Protocol):
    """An endless, deterministic sequence of prompts; its state is a small JSON-like dict."""

    def __next__(self) -> Prompt: ...

    def observe(self, group: Group) -> None:
        """Called in serial order for every scored group, also dropped ones: feeds curricula."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Prompts(Plugin):
    family: ClassVar[str] = "trainer.prompts"

    def stream(self, seed: int) -> Stream:
        """Training prompts: shuffled anew each epoch, `serial` 0, 1, 2, ... over the whole run."""
        raise NotImplementedError

    def heldout(self, limit: int | None = None) -> Sequence[Prompt]:
        """The held-out prompts, in a fixed order; never in `stream`."""
        raise NotImplementedError

    def columns(self) -> set[str]:
        """Names that `Prompt` will have filled: `answer`, `task`, `images`, `meta.<column>`."""
        raise NotImplementedError
