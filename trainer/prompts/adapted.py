"""Rows of another source, changed by a function: public data sets come in many shapes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from trainer.errors import DataError
from trainer.plugin import load_object
from trainer.prompts.base import Prompts, Row, Table

if TYPE_CHECKING:
    from PIL.Image import Image


class Adapted(Table):
    """`adapt` makes each row of `source` a new one. Columns, template, task and held-out share are
    set here; of the source only its rows, images and held-out rows are used."""

    source: Prompts
    """A source of rows such as `files` or `hub`."""
    adapt: str
    """`my_pkg.mod:fn`, row -> row. `trainer.ops.rows` has `scienceqa`, `refcoco`, `captions`,
    `lisa`."""

    @field_validator("source")
    @classmethod
    def _has_rows(cls, value: Prompts) -> Prompts:
        if not isinstance(value, Table):
            raise ValueError(f"needs a source of rows, {value.name()} has none of its own")
        return value

    @field_validator("adapt")
    @classmethod
    def _callable(cls, name: str) -> str:
        if ":" not in name or not callable(load_object(name)):
            raise ValueError(f"{name!r} is not a function my_pkg.mod:fn")
        return name

    def rows(self) -> AdaptedRows:
        return self._adapted(self._source.rows())

    def holdout_rows(self) -> AdaptedRows | None:
        own = self._source.holdout_rows()
        return None if own is None else self._adapted(own)

    def origin(self, rows: Sequence[Row], index: int) -> tuple[str, Path]:
        return self._source.origin(rows.inner, index)  # type: ignore[attr-defined]

    def drawn(self, row: Row, rng: random.Random) -> Row:
        return self._source.drawn(row, rng)

    def images(self, row: Row, value: Any, where: str, folder: Path) -> list[Image]:
        return self._source.images(row, value, where, folder)

    @property
    def _source(self) -> Table:
        return self.source  # type: ignore[return-value]

    def _adapted(self, inner: Sequence[Row]) -> AdaptedRows:
        return AdaptedRows(inner, load_object(self.adapt), self._source)


class AdaptedRows(Sequence[Row]):
    """Rows that are changed when they are asked for; what the function raises names the row."""

    def __init__(self, inner: Sequence[Row], adapt: Callable[[Row], Row], source: Table):
        self.inner, self._adapt, self._source = inner, adapt, source

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        row = self.inner[index]
        try:
            return self._adapt(row)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            where = self._source.origin(self.inner, index)[0]
            raise DataError(
                f"{where}: prompts.adapt cannot read the row: {type(error).__name__}: {error}; "
                f"columns: {', '.join(row)}"
            ) from error
