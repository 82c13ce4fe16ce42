"""A number that changes over the steps of a run."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from trainer.plugin import Frozen


class Ramp(Frozen):
    """From `first` to `last` between two steps, constant before and after; a plain number in its
    place stays what it is.

    linear, cosine (half a wave), exp (first * (last / first) ** share), step (jumps at `until`).
    decay: last + (first - last) * exp(-step / until), from step 0 on.
    """

    first: float = Field(allow_inf_nan=False)
    last: float = Field(allow_inf_nan=False)
    begin: int | float = Field(0, ge=0)
    """Step at which it begins to change; under 1: a share of all steps."""
    until: int | float = Field(1.0, gt=0)
    """Step at which it has become `last`; up to 1.0: a share of all steps."""
    shape: Literal["linear", "cosine", "exp", "step", "decay"] = "linear"

    @model_validator(mode="before")
    @classmethod
    def _constant(cls, data: Any) -> Any:
        if isinstance(data, int | float) and not isinstance(data, bool):
            return {"first": data, "last": data}
        return data

    @model_validator(mode="after")
    def _can_be_raised(self) -> Ramp:
        if self.shape == "exp" and (self.first <= 0 or self.last <= 0):
            raise ValueError(f"shape exp needs first and last above 0: {self.first}, {self.last}")
        return self

    def at(self, step: int, total: int) -> float:
        """The value at a step of a run of `total` steps."""
        begin, until = at_step(self.begin, total), at_step(self.until, total)
        if self.shape == "decay":
            return self.last + (self.first - self.last) * math.exp(-step / max(until, 1e-9))
        if self.shape == "step":
            return self.last if step >= until else self.first
        share = min(max((step - begin) / max(until - begin, 1e-9), 0.0), 1.0)
        if self.shape == "exp":
            return self.first * (self.last / self.first) ** share
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.first + (self.last - self.first) * share


def at_step(place: int | float, total: int) -> float:
    """A step as a recipe writes it: 1500 is a step, 0.5 half of the run, 1.0 its end, 1 the first
    step."""
    return place * total if isinstance(place, float) and place <= 1 else place
