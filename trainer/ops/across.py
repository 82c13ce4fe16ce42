"""What a plug-in may ask of the other processes before a minibatch's first backward."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Across:
    """All processes call `sum` and `gather` equally often and in the same order."""

    sum: Callable[[Tensor], Tensor]
    """Adds a tensor of equal shape up over processes."""
    gather: Callable[[Any], list[Any]]
    """What each process gave, by rank."""
    random: random.Random
    """Seeded by (run seed, step, epoch, minibatch): the same numbers on every process."""
    rank: int = 0
    """This process's place in what `gather` gives."""

    @classmethod
    def alone(cls, seed: int = 0) -> Across:
        """For one process."""
        return cls(sum=Tensor.clone, gather=lambda value: [value], random=random.Random(seed))
