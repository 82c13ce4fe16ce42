"""Contract of `prompts:`: where questions come from, in which order, and how to come back to it.

A source gives rows; `Table` turns them into a deterministic, resumable stream of `Prompt`s.
"""

from __future__ import annotations

import difflib
import itertools
import random
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, overload

from pydantic import Field, field_validator

from trainer.errors import DataError
from trainer.ops.columns import has, inside
from trainer.ops.shuffle import permuted, stable_hash
from trainer.plugin import Frozen, Plugin
from trainer.templates.base import Template
from trainer.types import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image

    from trainer.types import Group

Split = Literal["train", "heldout"]
Row = dict[str, Any]

_ALIASES = {
    "question": ("question", "problem", "prompt", "query"),
    "answer": ("answer", "solution", "ground_truth"),
    "images": ("images", "image"),
    "messages": ("messages",),
    "task": ("task",),
    "id": ("id",),
}


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
        """The held-out prompts, in a fixed order; never in `stream`. Their serials are -1, -2, ...
        and their ids begin with `heldout/`, so neither meets one of `stream`."""
        raise NotImplementedError

    def columns(self) -> set[str]:
        """Names that `Prompt` will have filled: `answer`, `task`, `images`, `meta.<column>`."""
        raise NotImplementedError


class Heldout(Sequence[Prompt]):
    """`size` prompts that are made when they are asked for: images are not all kept in memory."""

    def __init__(self, size: int, make: Callable[[int], Prompt]):
        self._size, self._make = size, make

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> list[Prompt]: ...
    def __getitem__(self, index: int | slice) -> Prompt | list[Prompt]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(self._size)[index]]
        return self._make(range(self._size)[index])


class Columns(Frozen):
    """Which column of the data holds what. None looks for the usual names: question | problem |
    prompt | query, answer | solution | ground_truth, images | image, messages, task, id. A dot
    looks inside a column: `reward_model.ground_truth`."""

    question: str | None = None
    """Text, or a list of chat messages."""
    answer: str | None = None
    images: str | None = None
    """One image or a list: paths (relative to the data file), bytes, `{bytes, path}`, PIL."""
    messages: str | None = None
    task: str | None = None
    id: str | None = None

    def found(self, names: Sequence[str], where: str) -> dict[str, str]:
        """{ours: theirs} for a table with these column names. Raises DataError if a column that
        was asked for is not there, or if nothing holds the question."""
        found = {}
        for ours, aliases in _ALIASES.items():
            asked = getattr(self, ours)
            if asked is not None and not {asked, asked.partition(".")[0]} & set(names):
                near = difflib.get_close_matches(asked, names, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise DataError(
                    f"{where}: no column {asked!r} (prompts.column_of.{ours}); {hint}"
                    f"columns: {', '.join(names)}"
                )
            theirs = asked or next((name for name in aliases if name in names), None)
            if theirs is not None:
                found[ours] = theirs
        if "question" not in found and "messages" not in found:
            near = [n for a in _ALIASES["question"] for n in difflib.get_close_matches(a, names, 1)]
            hint = f"nearest: {near[0]!r}; " if near else ""
            raise DataError(
                f"{where}: no column {' or '.join(_ALIASES['question'])} or messages; {hint}"
                f"columns: {', '.join(names)}; name it with prompts.column_of.question"
            )
        return found


class Table(Prompts):
    """A source of rows. A subclass writes `rows`; order, split, resume and errors are here.

    The train / held-out split depends on the number of rows alone, not on the run's seed: runs
    with other seeds are measured on the same prompts.
    """

    column_of: Columns = Columns()
    template: Template = Field("plain", validate_default=True)
    task: str | None = None
    """Kind of every row, where the data has no such column; `route` chooses a reward by it."""
    shuffle: bool = True
    """A new order each epoch; false keeps the data's order."""
    holdout: int | float = Field(0, ge=0)
    """Rows kept out of training: a share (0.1) or a count (200), drawn at random."""
    limit: int | None = Field(None, gt=0)
    """Use the first rows only, held-out ones included."""
    answer_after: str | None = Field(None, min_length=1)
    """The answer is what stands after the last of these in its column: `####` for GSM8K."""

    @field_validator("holdout")
    @classmethod
    def _share(cls, value: int | float) -> int | float:
        if isinstance(value, float) and value >= 1:
            raise ValueError(
                f"a share must be under 1, got {value}; a count is written {value:.0f}"
            )
        return value

    def rows(self) -> Sequence[Row]:
        """Every row; may be made or read when it is asked for. Raises DataError."""
        raise NotImplementedError

    def holdout_rows(self) -> Sequence[Row] | None:
        """Rows of a held-out set of its own; None cuts `holdout` of them out of `rows`."""
        return None

    def origin(self, rows: Sequence[Row], index: int) -> tuple[str, Path]:
        """How errors name a row of `rows`, and the folder its image paths are relative to."""
        return f"{self.name()}, row {index}", Path.cwd()

    def answer(self, value: Any, where: str) -> Any:
        """What its column holds, cut as `answer_after` says; DataError if the mark is missing."""
        if self.answer_after is None or value is None:
            return value
        _, mark, answer = str(value).rpartition(self.answer_after)
        if not mark:
            raise DataError(
                f"{where}: no {self.answer_after!r} (prompts.answer_after) in {value!r}"
            )
        return answer.strip()

    def drawn(self, row: Row, rng: random.Random) -> Row:
        """The row as one draw of it: the place for what differs from epoch to epoch. `rng` is
        seeded by (run seed, row, epoch)."""
        return row

    def images(self, row: Row, value: Any, where: str, folder: Path) -> list[Image]:
        """The images of a row, from `value` in its image column."""
        from trainer.ops.images import load_image

        listed = value if isinstance(value, (list, tuple)) else [value]
        return [load_image(one, folder, where) for one in listed if one is not None]

    def stream(self, seed: int) -> TableStream:
        return TableStream(self.opened, seed)

    def heldout(self, limit: int | None = None) -> Sequence[Prompt]:
        return Heldout(_least(self.opened.heldout_size, limit), self.opened.heldout)

    def columns(self) -> set[str]:
        return self.opened.columns()

    @cached_property
    def opened(self) -> OpenTable:
        """The rows, read once."""
        return OpenTable(self)


class OpenTable:
    """The rows of a table, split into training and held-out ones, each turned into a prompt when
    it is drawn."""

    def __init__(self, table: Table):
        self.table = table
        self.rows = table.rows()
        own = table.holdout_rows()
        self._total = _least(len(self.rows), table.limit)
        self._cut = 0 if own is not None else _count(table.holdout, self._total)
        self._heldout_rows = self.rows if own is None else own
        self.heldout_size = self._cut if own is None else len(own)
        self.size = self._total - self._cut
        if self.size <= 0:
            raise DataError(
                f"{table.name()}: no row is left to train on ({self._total} rows, {self._cut} of "
                "them held out); lower prompts.holdout or give more data"
            )
        names = dict.fromkeys(name for i in range(min(16, self._total)) for name in self.rows[i])
        self.found = table.column_of.found(list(names), table.origin(self.rows, 0)[0])
        self.names = set(names)

    def index(self, item: int) -> int:
        """Row of the `item`-th training prompt, 0 <= item < size."""
        return permuted(self._cut + item, self._total, "holdout") if self._cut else item

    def prompt(self, item: int, *, seed: int, epoch: int, serial: int) -> Prompt:
        """The `item`-th training prompt."""
        index = self.index(item)
        rng = random.Random(f"{seed}/{index}/{epoch}")
        return self._made(self.rows, index, rng, serial, "")

    def heldout(self, item: int) -> Prompt:
        """The `item`-th held-out prompt: serial -1 - item."""
        index = permuted(item, self._total, "holdout") if self._cut else item
        rng = random.Random(f"heldout/{index}")
        return self._made(self._heldout_rows, index, rng, -1 - item, "heldout/")

    def columns(self) -> set[str]:
        filled = {ours for ours in ("answer", "images", "task") if ours in self.found}
        if self.table.task is not None:
            filled.add("task")
        drawn = self.table.drawn(self.rows[self.index(0)], random.Random(0))
        return filled | {f"meta.{name}" for name in self.names | set(drawn)}

    def _made(
        self, rows: Sequence[Row], index: int, rng: random.Random, serial: int, prefix: str
    ) -> Prompt:
        from trainer.ops.images import without_pixels

        where, folder = self.table.origin(rows, index)
        row = self.table.drawn(rows[index], rng)
        for ours in ("question", "messages", "answer"):
            if ours in self.found and not has(row, self.found[ours]):
                raise DataError(
                    f"{where}: no column {self.found[ours]!r} ({ours}); it has: {', '.join(row)}"
                )
        value = {ours: inside(row, theirs) for ours, theirs in self.found.items()}
        ready: dict[str, Any] = {
            "images": self.table.images(row, value.get("images"), where, folder)
        }
        asked = value.get("messages") or value.get("question")
        if not asked or not isinstance(asked, (str, list, tuple)):
            raise DataError(f"{where}: the question must be text or messages, got {asked!r}")
        ready["question" if isinstance(asked, str) else "messages"] = asked
        try:
            messages = self.table.template.messages(ready)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        name = value.get("id")
        return Prompt(
            id=f"{prefix}{index if name is None else name}",
            messages=messages,
            answer=self.table.answer(value.get("answer"), where),
            task=self.table.task if value.get("task") is None else str(value["task"]),
            meta=without_pixels(row),
            serial=serial,
            origin=where,
        )


class Cursor:
    """Walks `size` items for ever, each once per epoch, in a new order every epoch. Its state is
    its position."""

    def __init__(self, size: int, key: str, *, shuffle: bool = True):
        self.size, self.position = size, 0
        self._key, self._shuffle = key, shuffle

    def __next__(self) -> tuple[int, int]:
        """(item, epoch)."""
        epoch, place = divmod(self.position, self.size)
        self.position += 1
        return (
            permuted(place, self.size, f"{self._key}/{epoch}") if self._shuffle else place
        ), epoch

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position, "size": self.size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises DataError if the number of items changed since: the order would be another."""
        if state["size"] != self.size:
            raise DataError(
                f"prompts: the checkpoint was made with {state['size']} training rows, the data "
                f"now has {self.size}; restore the data, or start anew with --fresh"
            )
        self.position = state["position"]


class TableStream:
    """The training prompts of a table."""

    def __init__(self, opened: OpenTable, seed: int):
        self._opened, self._seed = opened, seed
        self._cursor = Cursor(opened.size, str(seed), shuffle=opened.table.shuffle)

    def __next__(self) -> Prompt:
        serial = self._cursor.position
        item, epoch = next(self._cursor)
        return self._opened.prompt(item, seed=self._seed, epoch=epoch, serial=serial)

    def observe(self, group: Group) -> None:
        """A table's order does not depend on what happens."""

    def state_dict(self) -> dict[str, Any]:
        return self._cursor.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._cursor.load_state_dict(state)


class Made(Sequence[Row]):
    """`size` rows made from their index: nothing is kept, so `size` may be billions."""

    def __init__(self, size: int, make: Callable[[int], Row]):
        self._size, self._make = size, make

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        return self._make(range(self._size)[index])


class Generated(Table):
    """Rows made in code, without end: row i depends on (`seed`, i) alone.

    A row's content decides its split (one in eight is held out), so however many rows are drawn no
    held-out problem is ever trained on, not even by coincidence.
    """

    holdout: int = Field(128, ge=0)
    """Held-out rows."""
    problems: int = Field(2**31, gt=0)
    """Training rows; fewer make the same problems come back every epoch."""
    seed: int = 0
    """Of the problems themselves; the run's seed decides their order."""

    def make(self, rng: random.Random) -> Row:
        """A random row."""
        raise NotImplementedError

    def content(self, row: Row) -> Any:
        """What makes two rows the same problem."""
        raise NotImplementedError

    def rows(self) -> Sequence[Row]:
        return Made(self.problems, lambda index: self._row("train", index))

    def holdout_rows(self) -> Sequence[Row]:
        return Made(self.holdout, lambda index: self._row("heldout", index))

    def _row(self, split: Split, index: int) -> Row:
        for attempt in itertools.count():
            row = self.make(random.Random(f"{self.seed}/{split}/{index}/{attempt}"))
            if (stable_hash(self.content(row)) % 8 == 0) == (split == "heldout"):
                return row
        raise AssertionError


def _least(size: int, limit: int | None) -> int:
    return size if limit is None else min(size, limit)


def _count(holdout: int | float, total: int) -> int:
    return holdout if isinstance(holdout, int) else round(holdout * total)
