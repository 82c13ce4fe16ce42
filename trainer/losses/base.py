"""Contract of `loss:`: per-action loss; the learner alone turns it into a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from trainer.plugin import Plugin

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.ops.across import Across
    from trainer.types import Batch, Evaluation

Aggregation = Literal[
    "token_mean",
    "token_mean_local",
    "seq_mean_token_mean",
    "seq_mean_token_sum",
    "seq_mean_token_sum_norm",
    "token_sum_norm",
    "seq_length_weighted",
]


class Loss(Plugin):
    """`per_action, metrics = loss(evaluation, batch)`; metrics, [B, T], are averaged over
    actions."""

    family: ClassVar[str] = "trainer.losses"
    needs: ClassVar[frozenset[str]] = frozenset()
    """Of {"old_logprobs", "ref_logprobs", "entropy", "values", "sampled_logprobs", "old_entropy",
    "current_logprobs"}. `sampled_logprobs` says: this plug-in itself corrects the distance between
    engine and policy. `old_entropy` (before the update) and `current_logprobs` (before each of its
    minibatches) are passes that fill `batch.extra`."""
    zero_advantage_is_zero_gradient: ClassVar[bool] = False
    """True lets the learner skip rows whose advantages are all 0: exact, and much faster late in
    training."""

    couples_rows: ClassVar[bool] = False
    """True where a row's loss depends on other rows of its group: micro-batches are then whole
    groups."""
    trains_judge: ClassVar[bool] = False
    """True for the losses of reward models: they train `policy.head: value` on recorded answers."""
    trains_values: ClassVar[bool] = False
    """True for a loss of critics: it reads `evaluation.values` and `batch.returns`, and gives the
    language model's head no gradient."""

    aggregation: Aggregation = "token_mean"
    """How per-action losses become one number; see `trainer.ops.aggregation`."""
    length_norm: int | None = Field(None, gt=0)
    """L_max of `seq_mean_token_sum_norm` (Dr. GRPO) and L of `token_sum_norm`, in tokens.
    None takes `rollouts.sampling.max_tokens`."""
    local_rows: int = Field(8, gt=0)
    """Rows whose tokens share a denominator in `token_mean_local` (TRL's `bnpo`)."""
    count_empty_rows: bool = False
    """Rows without any action count in the mean of the `seq_mean_*` modes, as in TRL."""

    def on_minibatch(self, batch: Batch, across: Across) -> Batch:
        """Once per minibatch, before its first backward, on this process's rows: for selections
        and statistics that no micro-batch can see. Results go to `batch.extra`; a smaller `mask`
        takes positions out of the loss and of its denominator."""
        return batch

    def __call__(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        raise NotImplementedError


class RowLoss(Loss):
    """A loss of whole rows: of an answer and its label, or of a pair of answers.

    Subclasses write `of_rows`. Its values sit on the last action of each row, so that the loss is
    their mean over the rows; rows that `on_minibatch` masks out do not count.
    """

    leaves_rows_out: ClassVar[bool] = False
    """True where `on_minibatch` does; may be a property."""

    aggregation: Aggregation = "seq_mean_token_sum"
    """Nothing else: the mean over rows."""

    @field_validator("aggregation")
    @classmethod
    def _is_of_rows(cls, value: Aggregation) -> Aggregation:
        if value != "seq_mean_token_sum":
            raise ValueError(
                f"{value} divides by tokens, and this is a loss of whole answers: use "
                "seq_mean_token_sum, or leave it out"
            )
        return value

    def of_rows(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """f[B], and metrics as `__call__` returns them."""
        raise NotImplementedError

    def __call__(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        from trainer.ops.returns import at_last_action

        values, metrics = self.of_rows(evaluation, batch)
        return at_last_action(values, batch.mask), metrics
