"""What a plug-in may use while it is open: `async with plugin.open(context)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.learning import OpenTrainee
    from trainer.models.base import Model
    from trainer.policies.base import Policy
    from trainer.renderer import Renderer


def _alone(value: Any) -> list[Any]:
    return [value]


@dataclass(frozen=True, slots=True)
class Context:
    """Facts of one process of one run; the same object is handed to every plug-in."""

    folder: Path
    """The run folder; rank 0 writes there."""
    seed: int
    total_steps: int
    device: str
    """`cpu`, `cuda:0`, ..."""
    rank: int
    world: int
    """Number of trainer processes."""
    model: Model
    renderer: Renderer
    resuming: bool = False
    """True if an earlier attempt left state in `folder`: append, do not overwrite."""
    training: bool = True
    """False in an evaluation: what only training needs can stay unopened."""
    policy: Policy | None = None
    """The recipe's, for plug-ins whose own model takes over its settings."""
    trainees: OpenTrainee | None = None
    """Puts a model of the plug-in under training."""
    gather: Callable[[Any], list[Any]] = _alone
    """What each process gave, by rank; as synchronous and collective as a `Trainee`."""
