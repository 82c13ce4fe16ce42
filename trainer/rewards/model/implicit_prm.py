"""An implicit process-reward model, trained beside the policy on outcome labels (PRIME)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from trainer.errors import ConfigError
from trainer.learning import Beside, Optimizer
from trainer.losses.base import RowLoss
from trainer.models.base import Model
from trainer.policies.base import Policy
from trainer.rewards.base import CompositeReward, Reward, RewardContext, named_parts

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.context import Context
    from trainer.learning import Trainee
    from trainer.types import Batch, Group, Score


class ImplicitPrm(CompositeReward):
    """The value is `outcome`'s. Besides, q[i, t] = (log pi_phi - log pi_ref) of every token becomes
    `Batch.extra["process_rewards"]`, which `advantage: prime` reads.

    phi is a second language model, trained once a step, on the outcomes in 0..1 of the very answers
    that the policy is about to be trained on; it needs no other label ("Process Reinforcement
    through Implicit Rewards", arXiv:2502.01456). Per token r = scale q, then divided by
    M + 1e-6, M = the largest |sum of r from some token to the end of its row|. A model that is
    still its reference gives r = 0 everywhere.

    Must be the recipe's `reward` itself; combine others inside `outcome`. Logs `accuracy` (share of
    a group's pairs that it orders as their outcomes do, weighted by their distance; 0.5 where all
    are equal), `answer_reward` (mean of sum_t q), `largest_return` (M; with `scope: rank` the mean)
    and what its update reports.
    """

    outcome: Reward
    """What labels answers, and is the reward's value: a rule, a verifier, a sum of such."""
    model: Model | None = None
    """Start weights of phi; None: the policy's. Must have the same tokenizer as the policy."""
    reference_model: Model | None = None
    """Weights of pi_ref where they are not phi's start weights: phi is a reward model that was
    trained before (recipe `implicit_prm`), and this is what it was trained from."""
    policy: Policy | None = None
    """How phi is run; None: the recipe's policy settings, `lora` included."""
    learner: Optimizer = Optimizer(lr=1e-6, betas=(0.9, 0.999), clip_norm=10.0)
    loss: RowLoss = Field("implicit/ce", validate_default=True)
    """One of `implicit/ce`, `implicit/dpo`, `implicit/nca`, `implicit/kto`; it holds beta."""
    update: Literal["none", "before", "after", "reverse"] = "after"
    """`after`: the training pass is also the scoring pass, so with several minibatches later ones
    are scored by a model that has already learned from earlier ones (the paper's single forward).
    `before`: learn, then score. `reverse`: score everything, then learn. `none`: only score."""
    reference: Literal["frozen", "policy", "none"] = "frozen"
    """pi_ref: phi's start weights or `reference_model`, the log-probs that the answers were sampled
    with (use temperature 1), or 0."""
    granularity: Literal["token", "whole"] = "token"
    """`whole` puts the sum of a row on its last token."""
    scale: float = Field(1.0, gt=0)
    """The paper writes beta (0.05), its code 1; dividing by M makes them equal."""
    normalise: Literal["none", "rank", "global"] = "global"
    """M over the rows of all processes, or of each alone (the paper's code: the result then depends
    on the number of processes)."""

    _trainee: Any = PrivateAttr(None)
    _anchor: Any = PrivateAttr(None)
    _context: Any = PrivateAttr(None)

    @model_validator(mode="after")
    def _fits_together(self) -> ImplicitPrm:
        if self.policy is not None and self.policy.head != "lm":
            raise ValueError(f"policy.head: must be lm, is {self.policy.head}")
        if self.reference_model is not None and self.reference != "frozen":
            raise ValueError(
                f"reference_model: reference: {self.reference} reads no model; leave it out"
            )
        return self

    def children(self) -> dict[str, Reward]:
        return {"outcome": self.outcome}

    def beside(self) -> tuple[Beside, ...]:
        passes = int(self.reference == "frozen") + len(self.loss.needs & {"current_logprobs"})
        passes += self._scores_first + int(self.update == "before")
        optimizer = None if self.update == "none" else self.learner
        frozen = self.reference == "frozen" and self.reference_model is None
        own = [Beside(self.model, self.policy, optimizer, reference=frozen, passes=passes)]
        if self.reference_model is not None:
            own.append(Beside(self.reference_model, self.policy, None))
        return (*super().beside(), *own)

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        async with super().open(context), AsyncExitStack() as stack:
            if not context.training:
                yield
                return
            own = self.policy or context.policy
            if own is None or context.trainees is None:
                raise ConfigError("model/implicit_prm: only a training run can open it")
            own = own.model_copy(update={"head": "lm", "value_at": "before"})
            for model in (self.model, self.reference_model):
                _same_tokens(model, context)
            model = self.model or context.model
            await stack.enter_async_context(own.open(replace(context, model=model)))
            self._trainee = context.trainees(own, self.loss, self.learner)
            if self.reference_model is not None:
                self._anchor = own.model_copy(update={"lora": None})
                other = replace(context, model=self.reference_model)
                await stack.enter_async_context(self._anchor.open(other))
            self._context = context
            try:
                yield
            finally:
                self._trainee = self._anchor = self._context = None

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        return [
            replace(score, parts=named_parts("outcome", score))
            for score in await ctx.score(self.outcome, group)
        ]

    async def learn(
        self, groups: Sequence[Group], batch: Batch, step: int
    ) -> tuple[Batch, dict[str, float]]:
        batch, report = await super().learn(groups, batch, step)
        learned, more = await asyncio.to_thread(self._learn, batch, step)
        return learned, report | more

    def state_dict(self) -> dict[str, Any]:
        own = {} if self._trainee is None else {"prm": self._trainee.state_dict()}
        return super().state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self._trainee is not None:
            self._trainee.load_state_dict(state["prm"])

    def _learn(self, batch: Batch, step: int) -> tuple[Batch, dict[str, float]]:
        import torch

        trainee: Trainee = self._trainee
        labels = self._labels(batch)
        reference = self._reference(trainee, batch)
        wanted = batch.with_(ref_logprobs=reference)
        scored: Tensor | None = None
        # Before it has learned, phi is its reference; M would make rounding errors look like more.
        untouched = step == 1 and self.reference == "frozen" and self._anchor is None
        if self._scores_first:
            scored = reference if untouched else trainee.evaluate(batch).logprobs
            wanted = wanted.with_(old_logprobs=scored)
        report: dict[str, float] = {}
        if self.update != "none":
            seen = torch.zeros_like(batch.sampled_logprobs)
            report = trainee.update(wanted, step, seen)
            if self._single:
                scored = reference if untouched and self.learner.minibatches == 1 else seen
        if self.update == "before" or scored is None:
            scored = trainee.evaluate(batch).logprobs
        rewards, found = self._rewards(wanted, scored, labels)
        return batch.with_(extra=batch.extra | {"process_rewards": rewards}), report | found

    @property
    def _single(self) -> bool:
        """The forwards of the update are also the scores."""
        return self.update == "after" and not self.loss.leaves_rows_out

    @property
    def _scores_first(self) -> bool:
        """A pass before the update: for the scores, or for a loss that compares with it."""
        scores = self.update != "before" and not self._single
        return scores or "old_logprobs" in self.loss.needs

    def _labels(self, batch: Batch) -> Tensor:
        """[B], checked."""
        rows = batch.mask.any(-1)
        labels = batch.rewards.double().sum(-1)
        outcome = batch.parts.get("outcome")
        if rows.any() and (outcome is None or (outcome - labels)[rows].abs().max() > 1e-4):
            raise ConfigError(
                "reward: model/implicit_prm must be the recipe's own reward, and its outcome one "
                "value per answer; move other rewards into its `outcome`"
            )
        if (wrong := labels[rows & ((labels < 0) | (labels > 1))]).numel():
            raise ConfigError(
                f"reward.outcome: {self.outcome.name()} gave {float(wrong[0]):g}; the outcomes are "
                "labels and must be in 0..1: rescale them with `shaped`"
            )
        return labels

    def _reference(self, trainee: Trainee, batch: Batch) -> Tensor:
        import torch

        if self.reference == "policy":
            return batch.sampled_logprobs * batch.mask
        if self.reference == "none":
            return torch.zeros_like(batch.sampled_logprobs)
        if self._anchor is not None:
            return _logprobs(self._anchor, batch, self.learner.token_budget)
        return trainee.reference_logprobs(batch)

    def _rewards(
        self, batch: Batch, scored: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """[B, T] and what to log, over all processes."""
        import torch

        from trainer.ops.implicit import largest_return, pair_accuracy, token_rewards

        reference = batch.ref_logprobs
        assert reference is not None
        rewards = token_rewards(scored, reference, batch.mask, whole=self.granularity == "whole")
        rows = batch.mask.any(-1)
        answers = rewards.sum(-1)[rows]
        rewards = self.scale * rewards
        here = (
            largest_return(rewards, batch.mask),
            pair_accuracy(answers, labels[rows], batch.group[rows]),
            answers.tolist(),
        )
        everywhere = self._context.gather(here)
        largest = [one[0] for one in everywhere]
        report = {"largest_return": sum(largest) / len(largest)}
        if self.normalise == "global":
            report["largest_return"] = max(largest)
        if self.normalise != "none":
            rewards = rewards / ((max(largest) if self.normalise == "global" else here[0]) + 1e-6)
        for place, name in ((1, "accuracy"), (2, "answer_reward")):
            values = [value for one in everywhere for value in one[place]]
            if values:
                report[name] = torch.tensor(values, dtype=torch.float64).mean().item()
        return rewards.float(), report


def _logprobs(policy: Policy, batch: Batch, token_budget: int) -> Tensor:
    """f[B, T] of an open policy that is not trained."""
    import torch

    found = torch.zeros_like(batch.sampled_logprobs)
    rows = batch.mask.any(-1).nonzero().flatten().tolist()
    with torch.no_grad():
        for part in policy.plan(batch, rows, token_budget):
            found[part] = policy.evaluate(batch, part).logprobs.to(found.dtype)
    return found


def _same_tokens(model: Model | None, context: Context) -> None:
    """Raises `ConfigError` if the two tokenizers give a text other ids."""
    if model is None or model == context.model:
        return
    own, theirs = (r.tokenizer.get_vocab() for r in (model.renderer(), context.renderer))
    if different := sorted(own.items() ^ theirs.items())[:1]:
        raise ConfigError(
            f"reward.model: {model.name()} has another tokenizer than the policy's model (they "
            f"differ in {different[0][0]!r}); token rewards need the same one"
        )
