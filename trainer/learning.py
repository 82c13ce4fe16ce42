"""How a model is trained: the settings, and what a plug-in that trains one of its own is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from trainer.plugin import Frozen

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.losses.base import Loss
    from trainer.models.base import Model
    from trainer.policies.base import Policy
    from trainer.types import Batch, Evaluation


class Optimizer(Frozen):
    """AdamW, its schedule, and how a batch is cut into updates."""

    lr: float = Field(1e-6, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    min_lr_ratio: float = Field(0.0, ge=0, le=1)
    """Learning rate at the end of `linear` and `cosine`, as a share of `lr`."""
    clip_norm: float | None = Field(1.0, gt=0)
    epochs: int = Field(1, gt=0)
    """Passes over each batch."""
    minibatches: int = Field(1, gt=0)
    """Optimiser updates per pass."""
    token_budget: int = Field(16384, gt=0)
    """Packed tokens per micro-batch: memory only, never the result."""


@dataclass(frozen=True, slots=True)
class Beside:
    """A model beside the policy, as the plan of a run counts it."""

    model: Model | None
    """None: the policy's."""
    policy: Policy | None
    """None: the policy's settings."""
    optimizer: Optimizer | None
    """None: it is not trained."""
    reference: bool = False
    """Whether a frozen copy is kept; with LoRA it costs nothing."""
    passes: int = 0
    """Forward passes over the batch in a step, those of the update not counted."""


class Trainee(Protocol):
    """A model under training. Methods are synchronous, and collective where there are several
    processes: call them from `asyncio.to_thread`, in the same order everywhere."""

    policy: Policy

    def evaluate(self, batch: Batch) -> Evaluation:
        """The model as it is: eval mode, no gradient, every row; see `Policy.evaluate`."""
        ...

    def reference_logprobs(self, batch: Batch) -> Tensor:
        """f[B, T] of the model's start weights. The first call may load them."""
        ...

    def update(self, batch: Batch, step: int, seen: Tensor | None = None) -> dict[str, float]:
        """One pass of the optimiser over the batch; `step` counts from 1. Loss, its metrics,
        `grad_norm`, `lr`, ..., over all processes. `seen` f[B, T] is filled with the log-probs of
        the first epoch's own forwards, each before its update: one pass less than `evaluate`. Rows
        that the loss leaves out have 0."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimiser."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undoes `state_dict`."""
        ...


class OpenTrainee(Protocol):
    """`context.trainees(policy, loss, optimizer)`: puts an open policy under training. `where`: key
    of the settings in the recipe, for errors."""

    def __call__(
        self, policy: Policy, loss: Loss, optimizer: Optimizer, where: str = "reward.learner"
    ) -> Trainee: ...
