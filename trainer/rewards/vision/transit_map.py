"""Questions about a transit map: right or wrong, and partial credit for routes (RewardMap)."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from trainer.ops.parsing import LONGEST
from trainer.ops.text import last_boxed
from trainer.rewards.base import PointwiseReward, Verdict
from trainer.types import Prompt, Rollout, Score, ScoreStatus

_KEYS = ("Route Name:", "Departure Stop:", "Arrival Stop:")
_ANSWER_IS = re.compile(r"answer is:?[ \t*]{0,9}([A-Za-z0-9-]{1,20})", re.IGNORECASE)
_WHOLE = re.compile(r"-?[0-9]{1,9}")
_DROPPED = re.compile(r"\([^()]*\)|station|metro|[\s\-'\",]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Section:
    route: str
    departure: str
    arrival: str


class TransitMap(PointwiseReward):
    r"""W (10 acc + 0.5 detail), W = the map's weight + 0.5 if a trip with transfers is planned.

    The column `type` says what is asked: planning (also without the column), TorF1 and TorF2 (1 is
    yes), Counting2 and Counting3 (a number), Counting1 (A to D stand for 0 to 3). All but planning
    read the last `\boxed{}` or what follows `answer is`, have acc = 1 if it equals the row's
    answer, and detail = 0.

    Of a plan, acc = 1 if the first departure and last arrival are the asked stations, every route
    is a line of the map that holds both stops of its section, and each arrival is the next
    departure. detail = 0 without sections or with a wrong end; else 2, and for section i = 1, 2,
    ...: -5 if i is above the free sections; for a line of the map +4 (no transfers, and the line
    holds both stations) or +3 (transfers); +1 if it is not the last, its stops are on the line, it
    meets the next one and i is not above the transfers; at most `detail_cap`. Parts acc and detail.

    Columns: station_1, station_2, lines {name: [stops]}, transfers, difficulty (easy, middle,
    hard). The reply is sections of `Route Name:`, `Departure Stop:`, `Arrival Stop:`, parted by
    `--`. Nothing to read: 0, `unparsable`. Source: RewardMap (arXiv:2510.02240) and its code.
    """

    needs = frozenset({"meta.station_1|meta.type", "meta.lines|meta.type"})

    acc_weight: float = 10.0
    detail_weight: float = 0.5
    detail_cap: float = 10.0
    weights: dict[str, float] = Field({"easy": 1.0, "middle": 1.2, "hard": 1.5}, min_length=1)
    """Of the map's difficulty."""
    transfer_weight: float = 0.5
    count_transfers_as_sections: bool = True
    """The code charges sections above the number of transfers, though a trip with k transfers has
    k + 1 sections; off: the last one is free."""

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        row = prompt.meta
        kind = row.get("type") or "planning"
        if kind != "planning":
            return self._told(rollout.reply, kind, prompt)
        if row.get("lines") is None:
            reason = "the row has no lines"
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason=reason)
        sections = parse_sections(rollout.reply[-LONGEST:])
        if not sections:
            reason = "no section with Route Name, Departure Stop and Arrival Stop"
            return Score(0.0, status=ScoreStatus.UNPARSABLE, reason=reason)
        lines = {clean(name): {clean(s) for s in stops} for name, stops in row["lines"].items()}
        ends = clean(str(row["station_1"])), clean(str(row["station_2"]))
        transfers = int(row["transfers"])
        acc = self.accuracy(sections, lines, ends)
        detail = self.detail(sections, lines, ends, transfers)
        weight = self._weight(row.get("difficulty", "easy"), transfers)
        total = weight * (self.acc_weight * acc + self.detail_weight * detail)
        return Score(total, parts={"acc": acc, "detail": detail})

    def _told(self, reply: str, kind: str, prompt: Prompt) -> Verdict:
        weight = self._weight(prompt.meta.get("difficulty", "easy"), 0)
        said = last_boxed(reply)
        if said is None:
            after = _ANSWER_IS.findall(reply[-LONGEST:])
            said = after[-1].strip() if after else None
        if said is None:
            reason = "no \\boxed{} and no `answer is` in the reply"
            return Score(0.0, status=ScoreStatus.UNPARSABLE, reason=reason)
        acc = float(_value(said.lower(), kind) == int(prompt.answer))
        return Score(weight * self.acc_weight * acc, parts={"acc": acc, "detail": 0.0})

    def accuracy(
        self, sections: list[Section], lines: dict[str, set[str]], ends: tuple[str, str]
    ) -> float:
        """acc, of cleaned names."""
        meets = all(a.arrival == b.departure for a, b in itertools.pairwise(sections))
        on_lines = all({s.departure, s.arrival} <= lines.get(s.route, set()) for s in sections)
        return float((sections[0].departure, sections[-1].arrival) == ends and meets and on_lines)

    def detail(
        self,
        sections: list[Section],
        lines: dict[str, set[str]],
        ends: tuple[str, str],
        transfers: int,
    ) -> float:
        """The partial credit."""
        if (sections[0].departure, sections[-1].arrival) != ends:
            return 0.0
        free = transfers if self.count_transfers_as_sections else transfers + 1
        total = 2.0
        for i, section in enumerate(sections, start=1):
            stops = lines.get(section.route)
            total -= 5 if i > free else 0
            if stops is not None and (transfers > 0 or {*ends} <= stops):
                total += 3 if transfers > 0 else 4
            meets = i < len(sections) and section.arrival == sections[i].departure
            if (
                meets
                and i <= transfers
                and {section.departure, section.arrival} <= (stops or set())
            ):
                total += 1
        return min(total, self.detail_cap)

    def _weight(self, difficulty: Any, transfers: int) -> float:
        if difficulty not in self.weights:
            raise ValueError(f"difficulty {difficulty!r}: must be one of {', '.join(self.weights)}")
        return self.weights[difficulty] + (self.transfer_weight if transfers > 0 else 0.0)


def _value(said: str, kind: str) -> int | None:
    """The number that an answer stands for."""
    if kind in ("TorF1", "TorF2"):
        return {"yes": 1, "no": 0}.get(said)
    if kind == "Counting1":
        return "abcd".find(said) if len(said) == 1 else None
    if kind in ("Counting2", "Counting3"):
        return int(said) if _WHOLE.fullmatch(said) else None
    raise ValueError(f"type {kind!r}: must be planning, TorF1, TorF2, Counting1, 2 or 3")


def parse_sections(text: str) -> list[Section]:
    """The sections that hold all three names, cleaned."""
    found = []
    for part in text.split("--")[:1000]:
        places = [part.find(key) for key in _KEYS]
        if min(places) >= 0:
            route, departure, arrival = (
                _named(part[place + len(key) :]) for place, key in zip(places, _KEYS, strict=True)
            )
            found.append(Section(route, departure, arrival))
    return found


def _named(text: str) -> str:
    """The name at the start of a text: up to the end of its line, or the next key."""
    line = text.lstrip().split("\n", 1)[0]
    return clean(line[: min((line.find(key) for key in _KEYS if key in line), default=None)])


def clean(name: str) -> str:
    """Lower case, without what is in brackets, `Station`, `Metro`, blanks, hyphens, quotes."""
    return _DROPPED.sub("", name[:1000]).lower()
