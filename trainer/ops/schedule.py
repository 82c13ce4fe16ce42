"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate(
    step: int,
    *,
    lr: float,
    total_steps: int,
    warmup_steps: int = 0,
    schedule: Literal["constant", "linear", "cosine"] = "constant",
    min_ratio: float = 0.0,
) -> float:
    """Rate of step 0, 1, ..., total_steps - 1.

    Warm-up rises linearly: `lr (step + 1) / warmup_steps`, so no step is spent at rate 0 and step
    `warmup_steps - 1` is the first at `lr`. Then, with p the share of the remaining steps that is
    done: `linear` r = 1 - p, `cosine` r = (1 + cos(pi p)) / 2, and the rate is
    `lr (min_ratio + (1 - min_ratio) r)`. Steps past the end stay at `lr min_ratio`.
    """
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    if schedule == "constant":
        return lr
    done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    left = 1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return lr * (min_ratio + (1 - min_ratio) * left)
