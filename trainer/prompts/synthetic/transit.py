"""Small transit maps: questions about lines and stops, and trips to plan."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from trainer.ops.drawing import COLORS, canvas, draw_line
from trainer.prompts.base import Generated, Row

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

Kind = Literal["TorF1", "Counting2", "Counting1", "planning"]
_STOPS = "abcdefghi"


class Transit(Generated):
    r"""A map of nine places, `a` to `i` from the top left, with one line across and one down, each
    in its colour with a stop at three places; they meet at one.

    TorF1 `is the red line at e ?` (1 or 0, told as `\boxed{yes}`); Counting2 `how many stops has
    the red line ?`; Counting1 `which stop is on both lines ? A c B e C g D h` (the place of the
    letter, from 0); planning `from a to h ?`, answered by sections of `Route Name:`, `Departure
    Stop:`, `Arrival Stop:`, parted by `--`. Columns: type, answer, station_1, station_2, lines,
    transfers, difficulty, demonstration; names and bounds as in RewardMap (arXiv:2510.02240).

    `demonstration` is a careless teacher's: with probability `mistakes` its answer, or one name of
    its trip, is drawn at random; drawn anew each epoch.
    """

    question: tuple[Kind, ...] = Field(("planning",), min_length=1)
    """Kinds, mixed evenly."""
    mistakes: float = Field(0.5, ge=0, le=1)

    def make(self, rng: random.Random) -> Row:
        row, column = rng.randrange(3), rng.randrange(3)
        across, down = rng.sample(list(COLORS), 2)
        shorter = rng.random() < 0.5  # the line across leaves out an end where nothing is met
        columns = [x for x in range(3) if not (shorter and x == _far(column))]
        lines = {
            across: [_STOPS[3 * row + x] for x in columns],
            down: [_STOPS[3 * y + column] for y in range(3)],
        }
        met = _STOPS[3 * row + column]
        made = {"lines": lines, "difficulty": "easy", "images": None}
        kind = rng.choice(self.question)
        return made | {"type": kind} | self._asked(kind, lines, met, rng)

    def content(self, row: Row) -> Any:
        return row["question"], sorted(row["lines"].items())

    def drawn(self, row: Row, rng: random.Random) -> Row:
        wrong = rng.random() < self.mistakes
        if row["type"] == "planning":
            return row | {"demonstration": self._trip(row, wrong, rng)}
        answers = {"TorF1": ["yes", "no"], "Counting2": ["2", "3"], "Counting1": list("ABCD")}
        listed = answers[row["type"]]
        shown = row["told"] if not wrong else rng.choice(listed)
        return row | {"demonstration": f"\\boxed{{{shown}}}"}

    def images(self, row: Row, value: Any, where: str, folder: Path) -> list[Image]:
        image = canvas(3, 3)
        for color, stops in row["lines"].items():
            draw_line(image, color, [(_STOPS.index(s) % 3, _STOPS.index(s) // 3) for s in stops])
        return [image]

    def _asked(self, kind: Kind, lines: dict[str, list[str]], met: str, rng: random.Random) -> Row:
        name, stops = rng.choice(list(lines.items()))
        if kind == "TorF1":
            there = rng.random() < 0.5
            stop = rng.choice([s for s in _STOPS if (s in stops) == there])
            said = "yes" if there else "no"
            return {
                "question": f"is the {name} line at {stop} ?",
                "answer": int(there),
                "told": said,
            }
        if kind == "Counting2":
            question = f"how many stops has the {name} line ?"
            return {"question": question, "answer": len(stops), "told": str(len(stops))}
        if kind == "Counting1":
            options = [met, *rng.sample([s for s in _STOPS if s != met], 3)]
            rng.shuffle(options)
            shown = " ".join(f"{a} {b}" for a, b in zip("ABCD", options, strict=True))
            place = options.index(met)
            question = f"which stop is on both lines ? {shown}"
            return {"question": question, "answer": place, "told": "ABCD"[place]}
        return self._planned(lines, met, rng)

    def _planned(self, lines: dict[str, list[str]], met: str, rng: random.Random) -> Row:
        first, last = rng.sample(list(lines), 2)
        ends = [rng.choice([s for s in lines[name] if s != met]) for name in (first, last)]
        route = [[first, ends[0], met], [last, met, ends[1]]]
        if rng.random() < 0.5:  # on one line, without a change
            ends = rng.sample(lines[first], 2)
            route = [[first, *ends]]
        return {
            "question": f"from {ends[0]} to {ends[1]} ?",
            "answer": None,
            "station_1": ends[0],
            "station_2": ends[1],
            "transfers": len(route) - 1,
            "question_transfer_count": len(route) - 1,
            "route": route,
        }

    def _trip(self, row: Row, wrong: bool, rng: random.Random) -> str:
        route = [list(section) for section in row["route"]]
        if wrong:
            section = rng.choice(route)
            place = rng.randrange(3)
            section[place] = rng.choice(list(row["lines"]) if place == 0 else _STOPS)
        return " -- ".join(
            f"Route Name: {name}\nDeparture Stop: {start}\nArrival Stop: {end}"
            for name, start, end in route
        )


def _far(column: int) -> int:
    """An end of the row that is not the column."""
    return 2 if column < 2 else 0
