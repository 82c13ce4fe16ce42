"""Contract of `modifiers:`: what changes rewards or a loss (KL, entropy, TIS, masks)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from trainer.plugin import Plugin

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from trainer.ops.across import Across
    from trainer.types import Batch, Evaluation


class Modifier(Plugin):
    """The hooks do nothing by default; a modifier overrides those it needs."""

    family: ClassVar[str] = "trainer.modifiers"
    needs: ClassVar[frozenset[str]] = frozenset()
    """As `Loss.needs`; may be a property where it depends on the fields."""
    scales_loss: ClassVar[bool] = False
    """True if `on_loss` multiplies by weights. The learner calls these modifiers first, whatever
    the recipe's order, so that no term which another one adds (KL, entropy) is ever weighed."""

    trains_values: ClassVar[bool] = False
    """True if `on_loss` teaches the value head of a policy with `head: both`."""

    @property
    def changes_loss(self) -> bool:
        """False if `on_loss` gives no gradient to a row that has none, so that zero-advantage rows
        may still be skipped."""
        return True

    def on_batch(self, batch: Batch, all_reduce: Callable[[Tensor], Tensor]) -> Batch:
        """Once a step, on this process's whole batch, with the log-probs that the recipe needs:
        for statistics that no micro-batch can see. Results go to `batch.extra`. `all_reduce` adds
        a tensor up over processes; all of them must call it equally often."""
        return batch

    def on_minibatch(self, batch: Batch, across: Across) -> Batch:
        """As `Loss.on_minibatch`."""
        return batch

    def on_rewards(self, batch: Batch) -> tuple[Batch, dict[str, float]]:
        """Before advantages; returns the batch and numbers to log."""
        return batch, {}

    def on_loss(
        self, per_action: Tensor, evaluation: Evaluation, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """After the loss, before aggregation; metrics as in `Loss`. `batch.extra["scale"]`
        f[B, T] is what the learner will multiply by: divided out, a term has its own
        denominator."""
        return per_action, {}

    def state_dict(self) -> dict[str, Any]:
        """What decides the next step besides the fields, the same on every process; takes
        `torch.save`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undoes `state_dict`."""
