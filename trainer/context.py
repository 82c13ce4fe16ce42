"""What a plug-in may use: a `Context` while it is open, a `RewardContext` while it scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import random

    from PIL.Image import Image

    from trainer.learning import OpenTrainee
    from trainer.models.base import Model
    from trainer.policies.base import Policy
    from trainer.renderer import Renderer
    from trainer.rewards.base import IsolatedReward, Reward
    from trainer.types import Group, Score


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


class RewardContext(Protocol):
    """What a reward may ask for while it scores one group.

    `score` is the border where faults become data: it applies the deadline, catches whatever the
    child does, checks length and finiteness, and always returns one `Score` per rollout. Rewards
    that combine others call it, never `child.score` directly.
    """

    step: int
    total_steps: int
    rng: random.Random
    """Seeded by (run seed, serial): the same on every attempt."""

    async def score(self, reward: Reward, group: Group) -> list[Score]: ...

    async def isolate(self, reward: IsolatedReward, group: Group) -> list[Score]:
        """Grades in a worker process that is killed at the deadline."""
        ...

    async def logprobs(
        self, rows: list[tuple[list[int], dict[str, Any]]], model: str = "policy"
    ) -> list[list[float]]:
        """Teacher-forced log-probs at temperature 1, [n - 1] per row of (tokens, inputs).

        `model`: `policy`, the engine's current weights; `reference`, the recipe's `reference`, for
        rewards that have `reference` in `needs`. Banned tokens have -inf."""
        ...

    async def continue_(self, tokens: list[int], inputs: dict[str, Any], **sampling: Any) -> str:
        """Samples a continuation of any prefix and returns its text."""
        ...

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One unit vector per text, by the frozen encoder of `scoring.encoder`; for rewards that
        have `encoder` in `needs`."""
        ...

    async def embed_images(self, images: Sequence[Image]) -> list[list[float]]:
        """One unit vector per picture, by the frozen encoder of `scoring.image_encoder`; for
        rewards that have `image_encoder` in `needs`."""
        ...

    async def lpips(self, images: Sequence[Image], right: Image) -> list[float]:
        """LPIPS distances of pictures to one, by the weights of `scoring.lpips`; for rewards that
        have `lpips` in `needs`."""
        ...

    def waiting(self) -> AbstractContextManager[None]:
        """`with ctx.waiting():` stops the reward's deadline, while it waits for something that has
        a deadline of its own."""
        ...
