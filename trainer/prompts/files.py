"""Rows of local files: .jsonl, .json, .parquet or .csv."""

from __future__ import annotations

import bisect
import csv
import difflib
import glob
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from trainer.errors import DataError
from trainer.prompts.base import Row, Table

_Paths = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
]


class Files(Table):
    path: _Paths
    """A file, a glob (`data/*.parquet`), or a list of them; relative to where Cohort runs."""
    holdout_path: _Paths = ()
    """Held-out rows in files of their own; `holdout` is not used then."""

    def rows(self) -> FileRows:
        return FileRows(self.path)

    def holdout_rows(self) -> FileRows | None:
        return FileRows(self.holdout_path) if self.holdout_path else None

    def origin(self, rows: Sequence[Row], index: int) -> tuple[str, Path]:
        return rows.origin(index)  # type: ignore[attr-defined]


class FileRows(Sequence[Row]):
    """The rows of several files, one after the other. Raises DataError for a missing, malformed or
    empty file; a malformed line is named as `file:line`."""

    def __init__(self, patterns: Sequence[str]):
        self._files = [file for pattern in patterns for file in _matching(pattern)]
        self._tables = [_reader(file)(file) for file in self._files]
        self._ends = list(itertools.accumulate(len(table) for table in self._tables))
        if not self._ends[-1]:
            raise DataError(f"{', '.join(map(str, self._files))}: there are no rows")

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        file, place = self._locate(index)
        return self._tables[file][place]

    def origin(self, index: int) -> tuple[str, Path]:
        """`file:line` where lines are rows, else `file, row i`; and the file's folder."""
        file, place = self._locate(index)
        path, table = self._files[file], self._tables[file]
        line = table.lines[place] if isinstance(table, _Lines) else None
        name = f"{path}, row {place}" if line is None else f"{path}:{line}"
        return name, path.parent

    def _locate(self, index: int) -> tuple[int, int]:
        index = range(len(self))[index]
        file = bisect.bisect_right(self._ends, index)
        return file, index - (self._ends[file - 1] if file else 0)


class _Lines(list[Row]):
    """Rows that remember their line in the file."""

    def __init__(self, rows: Sequence[Row], lines: Sequence[int]):
        super().__init__(rows)
        self.lines = lines


class _Arrow(Sequence[Row]):
    """Rows of a parquet file, memory-mapped and converted one by one."""

    def __init__(self, table: Any):
        self._table = table

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        return self._table.slice(index, 1).to_pylist()[0]


def _matching(pattern: str) -> list[Path]:
    wanted = Path(pattern).expanduser()
    if wanted.is_file():
        return [wanted]
    found = [Path(name) for name in sorted(glob.glob(str(wanted), recursive=True))]
    files = [path for path in found if path.is_file() and path.suffix in _READERS]
    if files:
        return files
    if wanted.is_dir():
        raise DataError(f"prompts.path: {pattern} is a folder; name its files: {pattern}/*.jsonl")
    near = ""
    if wanted.parent.is_dir():
        names = [path.name for path in wanted.parent.iterdir()]
        close = difflib.get_close_matches(wanted.name, names, n=1)
        near = f"; did you mean {wanted.parent / close[0]}?" if close else ""
    raise DataError(f"prompts.path: there is no file {pattern} (from {Path.cwd()}){near}")


def _reader(file: Path) -> Callable[[Path], Sequence[Row]]:
    if file.suffix not in _READERS:
        raise DataError(f"{file}: cannot read {file.suffix!r}; one of: {', '.join(_READERS)}")
    return _READERS[file.suffix]


def _read_jsonl(file: Path) -> _Lines:
    rows, lines = [], []
    with file.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                rows.append(_object(line, f"{file}:{number}"))
                lines.append(number)
    return _Lines(rows, lines)


def _object(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row must be an object {{...}}, got {type(row).__name__}")
    return row


def _read_json(file: Path) -> list[Row]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{file}:{error.lineno}: not JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file}: must hold a list of objects [{{...}}, ...]")
    return rows


def _read_csv(file: Path) -> _Lines:
    rows, lines = [], []
    with file.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        for row in reader:
            if None in row or None in row.values():
                raise DataError(
                    f"{file}:{reader.line_num}: the row has another number of columns than the "
                    f"header ({len(reader.fieldnames or ())})"
                )
            rows.append(row)
            lines.append(reader.line_num)
    return _Lines(rows, lines)


def _read_parquet(file: Path) -> _Arrow:
    import pyarrow
    import pyarrow.parquet

    try:
        return _Arrow(pyarrow.parquet.read_table(file, memory_map=True))
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: not a parquet file: {error}") from error


_READERS: dict[str, Callable[[Path], Sequence[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
