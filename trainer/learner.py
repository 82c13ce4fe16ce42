"""One step of policy optimisation: log-probs and values, advantages, then the updates."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trainer.errors import CheckpointError, CohortError
from trainer.ops.batches import merge
from trainer.ops.tally import Tally
from trainer.ops.value_loss import fit
from trainer.updater import Job, Updater

if TYPE_CHECKING:
    import torch

    from trainer.config import Recipe
    from trainer.distributed import Distributed
    from trainer.learning import Trainee
    from trainer.policies.base import Policy
    from trainer.reference import ReferenceModel
    from trainer.types import Batch


class Learner:
    """Turns batches into weights of the policy, and of the critic if the recipe has one. All
    methods are synchronous and, with several processes, are called by all of them in the same
    order."""

    def __init__(
        self,
        recipe: Recipe,
        policy: Policy,
        reference: ReferenceModel | None,
        distributed: Distributed,
        critic: Trainee | None = None,
    ):
        self.recipe, self.policy = recipe, policy
        self.reference, self.distributed, self.critic = reference, distributed, critic
        self._held = recipe.critic.warmup_steps if recipe.critic is not None else 0
        job = policy_job(recipe)
        job = replace(job, steps=max(1, job.steps - self._held))
        self.updater = Updater(policy, job, distributed)
        self._noted = Tally()

    @property
    def module(self) -> torch.nn.Module:
        """The policy's, as the launch wrapped it."""
        return self.updater.module

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.updater.optimizer

    def annotate(self, batch: Batch) -> Batch:
        """The batch with the log-probs and values that the recipe needs: in eval mode, without
        gradient. See `config.Learner.old_logprobs` for when a pass is spared."""
        recipe = self.recipe
        if recipe.old_logprobs == "sampled":
            batch = batch.with_(old_logprobs=batch.sampled_logprobs)
        wants_entropy = "old_entropy" in recipe.needs
        shared_values = "values" in recipe.needs and self.critic is None
        if recipe.old_logprobs == "recompute" or wants_entropy or shared_values:
            seen = self.updater.evaluate(batch, entropy=wants_entropy)
            if recipe.old_logprobs == "recompute":
                batch = batch.with_(old_logprobs=seen.logprobs)
                self._note_gap(batch)
            if wants_entropy and seen.entropy is not None:
                batch = batch.with_(extra=batch.extra | {"old_entropy": seen.entropy})
            if shared_values:
                batch = batch.with_(values=seen.values)
        if "values" in recipe.needs and self.critic is not None:
            batch = batch.with_(values=self.critic.evaluate(batch).values)
        if "ref_logprobs" in recipe.needs:
            if self.reference is None:
                raise CohortError("this recipe needs ref_logprobs, but no reference model is open")
            reference = self.reference.logprobs(
                batch, recipe.rollouts.sampling.temperature, self.updater.token_budget
            )
            batch = batch.with_(ref_logprobs=reference)
        for modifier in recipe.modifiers:
            batch = modifier.on_batch(batch, self.distributed.all_reduce_sum)
        return batch

    def advantage(self, batch: Batch) -> Batch:
        """Modifiers on rewards, in the recipe's order, then the advantages, and the returns where
        a critic learns them. The modifiers' numbers are part of the next update's report."""
        actions = float((batch.mask * batch.weight).sum())
        for modifier in self.recipe.modifiers:
            batch, numbers = modifier.on_rewards(batch)
            for name, value in numbers.items():
                self._noted.mean(name, value, actions)
        estimate = self.recipe.advantage
        batch = batch.with_(returns=estimate.returns(batch))
        if not estimate.crosses_groups or self.distributed.world == 1:
            return batch.with_(advantages=estimate(batch))
        everyone = self.distributed.gather_objects(batch.with_(inputs=()))
        start = sum(len(other.tokens) for other in everyone[: self.distributed.rank])
        rows, width = batch.tokens.shape
        whole = estimate(merge(everyone))
        return batch.with_(advantages=whole[start : start + rows, :width])

    def _note_gap(self, batch: Batch) -> None:
        """Over every action that was sampled: nothing has been masked yet."""
        if not self.recipe.rollouts.agent.samples or batch.old_logprobs is None:
            return
        gap = (batch.old_logprobs - batch.sampled_logprobs).abs()
        self._noted.mean("logprob_gap_mean", gap, batch.mask * batch.weight)
        self._noted.maximum("logprob_gap_max", gap, batch.mask)

    def update(self, batch: Batch, step: int) -> dict[str, float]:
        """Trains the critic, then, once it is warm, the policy, on an annotated batch with
        advantages; `step` counts from 1. Report: `train/...` (see `Updater.update`; `active_rows`
        are those with some non-zero advantage) and, where something predicts values, `critic/...`:
        `value_mean`, `return_mean` and `explained_variance` of the values that the advantages were
        made with (see `ops.value_loss.fit`), and what a separate critic's update reports."""
        tally, self._noted = self._noted, Tally()
        tally.sum("active_rows", (batch.advantages * batch.mask).ne(0).any(-1).sum())
        whole = Tally.merged(self.distributed.gather_objects(tally.export()))
        found = dict(whole.report())
        critic: dict[str, float] = {}
        if batch.values is not None and batch.returns is not None:
            actions = batch.mask * batch.weight
            critic = fit(batch.values, batch.returns, actions, self.distributed.all_reduce_sum)
        if self.critic is not None:
            critic |= self.critic.update(batch, step)
            del critic["surrogate"]  # nothing modifies a critic's loss
        if step > self._held:
            found |= self.updater.update(batch, step - self._held)
        report = {f"train/{name}": value for name, value in found.items()}
        return report | {f"critic/{name}": value for name, value in critic.items()}

    def state_dict(self) -> dict[str, Any]:
        """What decides the next update besides the policy's weights."""
        state = self.updater.state_dict()
        state["modifiers"] = [modifier.state_dict() for modifier in self.recipe.modifiers]
        return state if self.critic is None else state | {"critic": self.critic.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undoes `state_dict`. Raises `CheckpointError` if one of the two has a critic and the
        other has none, or one of another shape."""
        if ("critic" in state) != (self.critic is not None):
            has, here = ("a", "none") if "critic" in state else ("no", "one")
            raise CheckpointError(
                f"the checkpoint has {has} critic and this recipe {here}: `critic` was changed "
                "since the checkpoint; change it back, or start anew with --fresh"
            )
        self.updater.load_state_dict(state)
        for modifier, own in zip(self.recipe.modifiers, state["modifiers"], strict=True):
            modifier.load_state_dict(own)
        if self.critic is not None:
            self.critic.load_state_dict(state["critic"])


def policy_job(recipe: Recipe) -> Job:
    """What the policy of `recipe` is trained towards."""
    return Job(
        loss=recipe.loss,
        modifiers=recipe.modifiers,
        optimizer=recipe.learner,
        seed=recipe.seed,
        steps=recipe.steps,
        groups_per_step=recipe.rollouts.groups_per_step,
        max_tokens=recipe.rollouts.sampling.max_tokens,
        temperature=recipe.rollouts.sampling.temperature,
        # With a pass of their own the old log-probs have told it already, of more actions.
        compares_engine=recipe.rollouts.agent.samples and recipe.old_logprobs != "recompute",
    )
