"""Draws most where the model passes about half of the time.

Rows are sorted into buckets by a column such as `level`. Each bucket keeps an exponential average
of its pass rate, p <- decay p + (1 - decay) (share of the group that passed), and is drawn with
probability proportional to floor + exp(-((p - target) / width)^2 / 2).
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from trainer.errors import DataError
from trainer.prompts.base import Cursor, OpenTable, Prompts, Table

if TYPE_CHECKING:
    from trainer.types import Group, Prompt

_MOST_ROWS = 200_000


class Curriculum(Prompts):
    source: Prompts
    """Where the rows come from: a source of rows such as `files`, `hub` or `synthetic/...`."""
    by: str = "level"
    """Column whose values are the buckets."""
    target: float = Field(0.5, ge=0, le=1)
    """Pass rate that is drawn most: at 0.5 a group has the most to compare."""
    width: float = Field(0.2, gt=0)
    """How quickly the weight falls away from the target."""
    floor: float = Field(0.05, gt=0)
    """Keeps every bucket alive, so that its pass rate stays up to date."""
    decay: float = Field(0.9, ge=0, lt=1)
    passed: float = 0.5
    """A rollout passes if its score is at least this."""

    @field_validator("source")
    @classmethod
    def _has_rows(cls, value: Prompts) -> Prompts:
        if not isinstance(value, Table):
            raise ValueError(f"needs a source of rows, {value.name()} has none of its own")
        return value

    def stream(self, seed: int) -> CurriculumStream:
        return CurriculumStream(self, self._buckets(), seed)

    def heldout(self, limit: int | None = None) -> Sequence[Prompt]:
        return self.source.heldout(limit)

    def columns(self) -> set[str]:
        return self.source.columns()

    @property
    def rows(self) -> OpenTable:
        """The source's rows, read once."""
        return self.source.opened  # type: ignore[attr-defined]

    def _buckets(self) -> dict[str, list[int]]:
        """{value of `by`: training items}, sorted by value."""
        if self.rows.size > _MOST_ROWS:
            raise DataError(
                f"prompts: a curriculum sorts every row, and {self.source.name()} has "
                f"{self.rows.size}; set prompts.source.limit (or .problems) to {_MOST_ROWS} or less"
            )
        buckets = defaultdict(list)
        for item in range(self.rows.size):
            row = self.rows.rows[self.rows.index(item)]
            if self.by not in row:
                raise DataError(
                    f"prompts.by: {self.source.name()} has no column {self.by!r} in every row; "
                    f"columns: {', '.join(row)}"
                )
            buckets[str(row[self.by])].append(item)
        return dict(sorted(buckets.items()))


class CurriculumStream:
    def __init__(self, curriculum: Curriculum, buckets: dict[str, list[int]], seed: int):
        self._curriculum, self._buckets, self._seed = curriculum, buckets, seed
        self._serial = 0
        self._rates: dict[str, float | None] = dict.fromkeys(buckets)
        shuffle = curriculum.source.shuffle  # type: ignore[attr-defined]
        self._cursors = {
            name: Cursor(len(items), f"{seed}/{name}", shuffle=shuffle)
            for name, items in buckets.items()
        }

    def __next__(self) -> Prompt:
        rng = random.Random(f"{self._seed}/{self._serial}")
        shares = self.shares()
        bucket = rng.choices(list(shares), list(shares.values()))[0]
        place, epoch = next(self._cursors[bucket])
        item = self._buckets[bucket][place]
        prompt = self._curriculum.rows.prompt(
            item, seed=self._seed, epoch=epoch, serial=self._serial
        )
        self._serial += 1
        return prompt

    def shares(self) -> dict[str, float]:
        """How often each bucket is drawn now, adding up to 1. A bucket never seen counts as on
        target."""
        curriculum = self._curriculum
        weights = {}
        for bucket, rate in self._rates.items():
            away = 0.0 if rate is None else (rate - curriculum.target) / curriculum.width
            weights[bucket] = curriculum.floor + math.exp(-away * away / 2)
        total = sum(weights.values())
        return {bucket: weight / total for bucket, weight in weights.items()}

    def observe(self, group: Group) -> None:
        """Moves the bucket's pass rate; rollouts without a score do not count."""
        scores = [r.score.value for r in group.rollouts if r.score and r.score.value is not None]
        if not scores:
            return
        curriculum = self._curriculum
        bucket = str(group.prompt.meta[curriculum.by])
        rate = sum(score >= curriculum.passed for score in scores) / len(scores)
        old = self._rates[bucket]
        self._rates[bucket] = (
            rate if old is None else curriculum.decay * old + (1 - curriculum.decay) * rate
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "serial": self._serial,
            "rates": dict(self._rates),
            "cursors": {name: cursor.state_dict() for name, cursor in self._cursors.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises DataError if the buckets are not those of the checkpoint."""
        if state["cursors"].keys() != self._cursors.keys():
            raise DataError(
                f"prompts: the checkpoint has buckets {', '.join(state['cursors'])}, the data now "
                f"has {', '.join(self._cursors)}; restore the data, or start anew with --fresh"
            )
        self._serial = state["serial"]
        self._rates = dict(state["rates"])
        for name, cursor in self._cursors.items():
            cursor.load_state_dict(state["cursors"][name])
