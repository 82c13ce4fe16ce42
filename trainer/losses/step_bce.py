"""Cross-entropy at the ends of steps: what a process reward model learns by."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainer.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.ops.across import Across
    from trainer.types import Batch, Evaluation


class StepBce(Loss):
    """l = -w (y log s(v) + (1 - y) log(1 - s(v))) at every labelled step end, s the sigmoid and v
    the value after that token; no other position counts, also not in the denominator.

    y in [0, 1] is `extra["process"]` at `extra["step_end"]` (reward `process/step_labels`): 1 for a
    right step, 0 for a wrong one, or a probability of success (Math-Shepherd, arXiv:2312.08935;
    PRM800K, arXiv:2305.20050). For `policy: {head: value, value_at: after}`. Metrics: `accuracy`
    at 1/2, `probability`, `label`. Raises ValueError for a label outside of [0, 1].
    """

    trains_judge: ClassVar[bool] = True

    positive_weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    """w of the part with y, 1 for the other: under 1 where right steps are many."""

    def on_minibatch(self, batch: Batch, across: Across) -> Batch:
        from trainer.ops.process import step_ends

        return batch.with_(mask=batch.mask & step_ends(batch))

    def __call__(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        import torch
        from torch.nn.functional import logsigmoid

        values = evaluation.values
        if values is None:
            raise ValueError("loss: step_bce needs policy: {head: value, value_at: after}")
        labels = batch.extra.get("process", torch.zeros_like(batch.rewards)).to(values)
        labels = labels * batch.mask
        if bool(((labels < 0) | (labels > 1)).any()):
            worst = labels.flatten()[(labels - 0.5).abs().argmax()]
            raise ValueError(
                f"loss: step_bce: a step's label is {float(worst):g}, it must lie in [0, 1]; map "
                "the data's labels with reward.values of process/step_labels"
            )
        losses = -(
            self.positive_weight * labels * logsigmoid(values) + (1 - labels) * logsigmoid(-values)
        )
        right = (values > 0) == (labels > 0.5)
        metrics = {
            "accuracy": right.float(),
            "probability": values.detach().sigmoid(),
            "label": labels,
        }
        return losses * batch.mask, metrics
