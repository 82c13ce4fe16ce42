"""The page of a run: `page.html`, one file that needs no network and no server.

The shell, style and scripts are the files beside this one. Between them stand the data: an index
of every rollout in columns, which is read at once, and pieces with texts, token numbers and
pictures, which are read when somebody looks at them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

from trainer import __version__
from trainer.errors import DataError
from trainer.monitors.base import read_rows
from trainer.page.chunks import Chunks, compact, rounded, write_chunk
from trainer.page.places import Reading
from trainer.run_folder import RESOLVED
from trainer.yaml import read_yaml

NAME = "page.html"
SCRIPTS = ("store", "filters", "list", "heat", "marks", "detail", "charts", "overview", "main")
TEXT, TRACE, PICTURES = 384_000, 384_000, 768_000
"""Characters of a piece: what is unpacked at once for one look."""
SNIPPET = 110

Row = dict[str, Any]


def write_page(folder: Path, path: Path | None = None) -> Path:
    """Writes the page of a run folder to `path` (default: `page.html` in it) and returns where.

    Rollouts without a trace have no picture and no heat map. Raises DataError if `folder` is not
    a run folder or the file cannot be written.
    """
    if not (folder / RESOLVED).is_file():
        raise DataError(f"{folder} is not a run folder (no {RESOLVED})")
    path = path or folder / NAME
    if path.is_dir():
        path = path / NAME
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", errors="surrogatepass") as file:
            _write(folder, file)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(
            f"cannot write the page {path} ({error}); name another place: --html PATH"
        ) from error
    return path


def _write(folder: Path, file: TextIO) -> None:
    assets = files("trainer.page")
    recipe = read_yaml(folder / RESOLVED)
    shell = (assets / "page.html").read_text(encoding="utf-8")
    shell = shell.replace("{{title}}", _escaped(f"{recipe['name']} · cohort"))
    head, tail = shell.replace("{{style}}", (assets / "page.css").read_text("utf-8")).split(
        "{{data}}"
    )
    file.write(head)
    index = _Index(file, folder, recipe)
    index.read()
    write_chunk(file, "index", compact(index.content()))
    code = "\n".join((assets / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    file.write(tail.replace("{{script}}", f'(() => {{\n"use strict";\n{code}\n}})();'))


class _Index:
    """Columns of all groups and members, filled while the pieces are written."""

    def __init__(self, file: TextIO, folder: Path, recipe: Row):
        self.folder, self.recipe = folder, recipe
        self.text = Chunks(file, "text", TEXT)
        self.trace = Chunks(file, "trace", TRACE)
        self.pictures = Chunks(file, "picture", PICTURES)
        self.groups: dict[str, list[Any]] = defaultdict(list)
        self.members: dict[str, list[Any]] = defaultdict(list)
        self.parts: dict[str, list[Any]] = {}
        self.names: dict[str, dict[Any, int]] = {"task": {}, "status": {}, "scored": {}}
        self.images: dict[str, list[int]] = {}
        self.readings: dict[str | None, Reading | None] = {}

    def read(self) -> None:
        """All row files of the run folder."""
        for row in read_rows(self.folder / "images.jsonl"):
            if row["hash"] not in self.images:
                where = self.pictures.add(row["data"])
                self.images[row["hash"]] = [*where, row["width"], row["height"]]
        self.pictures.flush()
        traces = _Traces(read_rows(self.folder / "traces.jsonl"))
        rows = read_rows(self.folder / "rollouts.jsonl")
        step, known = None, {}
        for (at, serial), members in groupby(rows, key=lambda row: (row["step"], row["group"])):
            if at != step:
                step, known = at, traces.up_to(at)
            self._group(at, serial, list(members), known.get(serial))
        self.text.flush()
        self.trace.flush()

    def content(self) -> Row:
        """What the page reads first."""
        metrics = list(read_rows(self.folder / "metrics.jsonl"))
        evaluations = list(read_rows(self.folder / "evaluations.jsonl"))
        return {
            "run": {
                "name": self.recipe["name"],
                "folder": self.folder.resolve().name,
                "stage": self.recipe["stage"],
                "description": self.recipe.get("description") or "",
                "steps": self.recipe["steps"],
                "written": time.strftime("%Y-%m-%d %H:%M"),
                "version": __version__,
                "recipe": (self.folder / RESOLVED).read_text(encoding="utf-8"),
            },
            "metrics": _columns(metrics),
            "timings": _columns(list(read_rows(self.folder / "timings.jsonl"))),
            "evaluations": evaluations,
            "groups": self.groups,
            "members": self.members,
            "parts": self.parts,
            "names": {name: list(values) for name, values in self.names.items()},
            "images": self.images,
            "chunks": {"text": self.text.count, "trace": self.trace.count},
        }

    def _group(self, step: int, serial: int, rows: list[Row], trace: Row | None) -> None:
        first = rows[0]
        traced = trace["rollouts"] if trace else []
        images = [name for name in (trace["pictures"] if trace else ()) if name in self.images]
        text: Row = {"prompt": first["prompt"], "answer": first["answer"], "images": images}
        reading = self._reading(first["task"]) if images else None
        sizes = [self._sizes(images, one) for one in traced or [{}]] if images else []
        if reading:
            gold = first["answer"] if first["answer"] is not None else (trace or {}).get("gold")
            text["gold"] = reading.gold(gold, *sizes[0], (trace or {}).get("spaces"))
        text["members"] = []
        for place, row in enumerate(rows):
            one: Row = {"reply": row["reply"]}
            one |= {key: row[key] for key in ("reason", "turns") if key in row}
            if reading and (
                found := reading.reply(row["reply"], *sizes[min(place, len(sizes) - 1)])
            ):
                one["places"] = found
            text["members"].append(one)
            self._member(row)
        self.groups["step"].append(step)
        self.groups["serial"].append(serial)
        self.groups["id"].append(first["id"])
        self.groups["task"].append(self._code("task", first["task"]))
        self.groups["size"].append(len(rows))
        self.groups["snippet"].append(_snippet(first["prompt"]))
        self.groups["dropped"].append(int(bool(trace and trace.get("dropped"))))
        self.groups["text"].append(self.text.add(text))
        self.groups["trace"].append(self.trace.add(traced) if traced else None)

    def _member(self, row: Row) -> None:
        number = len(self.members["reward"])
        self.members["reward"].append(rounded(row["reward"]))
        self.members["length"].append(row["length"])
        self.members["status"].append(self._code("status", row["status"]))
        self.members["scored"].append(self._code("scored", row["scored"]))
        for name, value in row["parts"].items():
            column = self.parts.setdefault(name, [])
            column += [None] * (number - len(column))
            column.append(rounded(value))

    def _code(self, name: str, value: Any) -> int:
        return self.names[name].setdefault(value, len(self.names[name]))

    def _reading(self, task: str | None) -> Reading | None:
        if task not in self.readings:
            self.readings[task] = Reading.of(self.recipe["reward"], task)
        return self.readings[task]

    def _sizes(self, images: list[str], traced: Row) -> tuple[Any, Any]:
        width, height = self.images[images[0]][2:]
        return (width, height), next(map(tuple, traced.get("image_sizes") or ()), None)


class _Traces:
    """Traces in the order of steps, asked for step by step."""

    def __init__(self, rows: Iterable[Row]):
        self._steps: Iterator[tuple[int, Iterator[Row]]] = groupby(rows, key=lambda r: r["step"])
        self._held: tuple[int, dict[int, Row]] | None = None

    def up_to(self, step: int) -> dict[int, Row]:
        """By group, those of `step`; {} if it has none."""
        while self._held is None or self._held[0] < step:
            following = next(self._steps, None)
            if following is None:
                return {}
            self._held = following[0], {row["group"]: row for row in following[1]}
        return self._held[1] if self._held[0] == step else {}


def _columns(rows: list[Row]) -> dict[str, list[Any]]:
    """By name: a list as long as `rows`, None where a row lacks the number."""
    names = {
        name: None for row in rows for name, value in row.items() if rounded(value) is not None
    }
    return {name: [rounded(row.get(name)) for row in rows] for name in names}


def _snippet(text: str) -> str:
    text = " ".join(text.replace("[image]", " ").split())
    return text if len(text) <= SNIPPET else f"{text[: SNIPPET - 1]}…"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
