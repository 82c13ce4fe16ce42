"""Models trained beside the policy: the critic, and what co-trained rewards hold."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from trainer.config import Reference
from trainer.errors import CheckpointError
from trainer.reference import ReferenceModel
from trainer.updater import Job, Updater

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.distributed import Distributed
    from trainer.learning import Optimizer
    from trainer.losses.base import Loss
    from trainer.policies.base import Policy
    from trainer.types import Batch, Evaluation


class ModelTrainee:
    """`learning.Trainee` around an open policy plug-in."""

    def __init__(self, policy: Policy, job: Job, distributed: Distributed):
        self.policy = policy
        self._updater = Updater(policy, job, distributed)
        self._reference: ReferenceModel | None = None

    def evaluate(self, batch: Batch) -> Evaluation:
        return self._updater.evaluate(batch)

    def reference_logprobs(self, batch: Batch) -> Tensor:
        if self._reference is None:
            self._reference = ReferenceModel(self.policy, Reference())
        job, budget = self._updater.job, self._updater.token_budget
        return self._reference.logprobs(batch, job.temperature, budget)

    def update(self, batch: Batch, step: int, seen: Tensor | None = None) -> dict[str, float]:
        return self._updater.update(batch, step, seen)

    def state_dict(self) -> dict[str, Any]:
        weights = {name: p.detach().cpu() for name, p in self.policy.trained().items()}
        return {"weights": weights, "updater": self._updater.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        own, saved = self.policy.trained(), state["weights"]
        wrong = sorted(own.keys() ^ saved.keys())
        wrong += sorted(n for n in own.keys() & saved.keys() if own[n].shape != saved[n].shape)
        if wrong:
            raise CheckpointError(
                f"the checkpoint and the model trained beside the policy differ in {wrong[0]!r} "
                f"({self._updater.job.where}): its model, adapter or head was changed since the "
                "checkpoint; change it back, or start anew with --fresh"
            )
        for name, tensor in own.items():
            tensor.copy_(saved[name])
        self._updater.load_state_dict(state["updater"])


class Trainees:
    """`learning.OpenTrainee` for one run: takes over what the recipe says of the policy's job."""

    def __init__(self, job: Job, distributed: Distributed):
        self._job, self._distributed = job, distributed

    def __call__(
        self, policy: Policy, loss: Loss, optimizer: Optimizer, where: str = "reward.learner"
    ) -> ModelTrainee:
        job = replace(
            self._job,
            loss=loss,
            modifiers=(),
            optimizer=optimizer,
            temperature=1.0,
            compares_engine=False,
            entropy=False,
            where=where,
        )
        return ModelTrainee(policy, job, self._distributed)
