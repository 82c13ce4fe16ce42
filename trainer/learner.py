"""The optimiser step: epochs x minibatches x micro-batches, blind to the algorithm.

A minibatch is whole groups, over all processes, and makes one update. A micro-batch is what fits
in memory. The denominators of the loss are counted over the minibatch before its first backward,
so how it is cut into micro-batches changes memory and time, never the gradient.

The batch, and all [B, T] arithmetic, stays on the CPU; only the model runs on the device.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainer.errors import CohortError
from trainer.ops.aggregation import coefficients
from trainer.ops.batches import merge, take
from trainer.ops.masked import masked_sum
from trainer.ops.schedule import learning_rate
from trainer.ops.tally import Tally

if TYPE_CHECKING:
    from trainer.config import Recipe
    from trainer.distributed import Distributed
    from trainer.policies.base import Policy
    from trainer.reference import ReferenceModel
    from trainer.types import Batch

SKIPPED_IN_A_ROW = 5
"""Updates without a finite gradient after which the run stops."""
_FUSED = ("cuda", "cpu", "mps", "xpu")


@dataclass(frozen=True, slots=True)
class _Minibatch:
    """What one update trains on, on this process."""

    batch: Batch
    """May have no row at all: its groups are then on other processes."""
    scale: Tensor  # f[B, T] coefficients of the per-action losses
    spare: Batch
    """One short row to run through the model when there is nothing to do."""
    first: bool
    """True while the weights are still those that `annotate` saw."""


class Learner:
    """Turns annotated batches into weights. All methods are synchronous and, with several
    processes, are called by all of them in the same order."""

    def __init__(
        self,
        recipe: Recipe,
        policy: Policy,
        reference: ReferenceModel | None,
        distributed: Distributed,
    ):
        """Builds the optimiser over the policy's trainable parameters and wraps both."""
        self.recipe, self.policy = recipe, policy
        self.reference, self.distributed = reference, distributed
        optimizer = _optimizer(recipe, policy.module, distributed.device)
        self.module, self.optimizer = distributed.prepare(policy.module, optimizer)
        policy.attach(self.module)
        self.token_budget = recipe.learner.token_budget
        self._temperature = recipe.rollouts.sampling.temperature
        self._skipped_in_a_row = 0
        self._noted = Tally()

    # -- before the update ------------------------------------------------------------------

    def annotate(self, batch: Batch) -> Batch:
        """The batch with the log-probs that the recipe needs: in eval mode, without gradient.
        See `config.Learner.old_logprobs` for when a pass is spared."""
        if self.recipe.old_logprobs == "sampled":
            batch = batch.with_(old_logprobs=batch.sampled_logprobs)
        elif self.recipe.old_logprobs == "recompute":
            batch = batch.with_(old_logprobs=self._logprobs(batch))
        if "ref_logprobs" in self.recipe.needs:
            if self.reference is None:
                raise CohortError("this recipe needs ref_logprobs, but no reference model is open")
            reference = self.reference.logprobs(batch, self._temperature, self.token_budget)
            batch = batch.with_(ref_logprobs=reference)
        for modifier in self.recipe.modifiers:
            batch = modifier.on_batch(batch, self.distributed.all_reduce_sum)
        return batch

    def advantage(self, batch: Batch) -> Batch:
        """Modifiers on rewards, in the recipe's order, then returns and advantages. The
        modifiers' numbers are part of the next update's report."""
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

    # -- the update -------------------------------------------------------------------------

    def update(self, batch: Batch, step: int) -> dict[str, float]:
        """One pass of the recipe over an annotated batch with advantages; `step` counts from 1.

        Report (`train/...`), over all processes: `loss` and `surrogate` (the loss before
        modifiers) as mean over updates; metrics of loss and modifiers, and `entropy`, as mean
        over the trained actions; `logprob_gap_mean` and `_max`, raw |policy - engine| per action
        before any change; `grad_norm` (before clipping), `lr`, `tokens` (actions trained on),
        `active_rows` (rows with some non-zero advantage), `updates`, `skipped_updates`.

        An update whose gradient is not finite is skipped; several in a row raise `CohortError`.
        """
        rate = self._set_rate(step)
        tally, self._noted = self._noted, Tally()
        tally.sum("active_rows", (batch.advantages * batch.mask).ne(0).any(-1).sum())
        norms: list[float] = []
        for epoch in range(self.recipe.learner.epochs):
            for rows in self._split(batch, step, epoch):
                mini = self._minibatch(batch, rows, first=not norms)
                tally.add(self._gradient(mini))
                norms.append(self._apply())
        whole = Tally.merged(self.distributed.gather_objects(tally.export()))
        report = {f"train/{name}": value for name, value in whole.report().items()}
        for name in ("loss", "surrogate"):
            report[f"train/{name}"] = whole.sums.get(name, 0.0) / len(norms)
        finite = [norm for norm in norms if math.isfinite(norm)]
        report["train/grad_norm"] = sum(finite) / len(finite) if finite else math.nan
        report["train/skipped_updates"] = float(len(norms) - len(finite))
        report["train/updates"] = float(len(finite))
        report["train/lr"] = rate
        return report

    def state_dict(self) -> dict[str, Any]:
        """What decides the next update besides the weights; takes `torch.save`."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "skipped_in_a_row": self._skipped_in_a_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undoes `state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self._skipped_in_a_row = state["skipped_in_a_row"]

    def _set_rate(self, step: int) -> float:
        settings = self.recipe.learner
        rate = learning_rate(
            step - 1,
            lr=settings.lr,
            total_steps=self.recipe.steps,
            warmup_steps=settings.warmup_steps,
            schedule=settings.schedule,
            min_ratio=settings.min_lr_ratio,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _split(self, batch: Batch, step: int, epoch: int) -> list[list[int]]:
        """Rows of each minibatch: whole groups, neighbours in the order of the prompts, so that
        the same prompts meet in one update on any number of processes and each process has an
        equal share. Their order is drawn anew every epoch from (seed, step, epoch)."""
        count, total = self.recipe.learner.minibatches, self.recipe.rollouts.groups_per_step
        rank, world = self.distributed.rank, self.distributed.world
        order = list(range(count))
        random.Random(repr((self.recipe.seed, step, epoch))).shuffle(order)
        part = [(own * world + rank) * count // total for own in batch.group.tolist()]
        return [[row for row, at in enumerate(part) if at == k] for k in order]

    def _minibatch(self, batch: Batch, rows: list[int], *, first: bool) -> _Minibatch:
        loss, mini = self.recipe.loss, take(batch, rows)
        scale = coefficients(
            mini.mask,
            mini.weight,
            loss.aggregation,
            length_norm=loss.length_norm or self.recipe.rollouts.sampling.max_tokens,
            local_rows=loss.local_rows,
            count_empty_rows=loss.count_empty_rows,
            all_reduce=self.distributed.all_reduce_sum,
        )
        return _Minibatch(mini, scale, take(batch, [int(batch.length.argmin())]), first)

    def _apply(self) -> float:
        """Clips the gradient and takes the optimiser's step; returns the norm before clipping."""
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        norm = self.distributed.clip_grad_norm(parameters, self.recipe.learner.clip_norm)
        if math.isfinite(norm):
            self.optimizer.step()
            self._skipped_in_a_row = 0
        else:
            self._skipped_in_a_row += 1
        self.optimizer.zero_grad(set_to_none=True)
        if self._skipped_in_a_row >= SKIPPED_IN_A_ROW:
            raise CohortError(
                f"{SKIPPED_IN_A_ROW} updates in a row had a gradient that is not finite "
                f"(the last norm: {norm}). Lower learner.lr, look for rewards or log-probs out of "
                "range in rollouts.jsonl, or set policy.dtype: float32; the weights are as before"
            )
        return norm

    # -- micro-batches ----------------------------------------------------------------------

    def _gradient(self, mini: _Minibatch) -> Tally:
        """Leaves the minibatch's gradient in the parameters. Out of memory: starts it over with
        half the token budget, which is exact because nothing has been applied yet."""
        rows = self._contributing(mini.batch)
        plan = self._plan(mini.batch, rows)
        forwards = max(1, *self.distributed.gather_objects(len(plan)))
        while True:
            try:
                return self._accumulate(mini, plan, max(forwards, len(plan)))
            except torch.OutOfMemoryError as error:
                full = str(error)
            # Only here, with the exception gone, are the tensors of its frames free.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            plan = self._finer(mini.batch, rows, plan, full)

    def _contributing(self, batch: Batch) -> list[int]:
        """Rows whose gradient is not 0 by construction."""
        modified = any(modifier.changes_loss for modifier in self.recipe.modifiers)
        moving = batch.mask
        if self.recipe.loss.zero_advantage_is_zero_gradient and not modified:
            moving = moving & (batch.advantages != 0)
        return moving.any(-1).nonzero().flatten().tolist()

    def _plan(self, batch: Batch, rows: Sequence[int]) -> list[list[int]]:
        """Micro-batches, largest first: memory runs out early or not at all."""
        if not rows:
            return []
        plan = self.policy.plan(batch, rows, self.token_budget)
        length = batch.length.tolist()
        return sorted(plan, key=lambda part: -sum(length[row] for row in part))

    def _finer(
        self, batch: Batch, rows: Sequence[int], plan: Sequence[list[int]], full: str
    ) -> list[list[int]]:
        """A plan with more micro-batches; raises `CohortError` where there is none."""
        if all(len(part) <= 1 for part in plan):
            raise CohortError(
                "out of memory on a micro-batch of a single row: lower "
                "rollouts.sampling.max_tokens, or set policy.gradient_checkpointing: true "
                f"({full})"
            )
        finer = plan
        while len(finer) <= len(plan):
            self.token_budget = max(1, self.token_budget // 2)
            finer = self._plan(batch, rows)
        return list(finer)

    def _accumulate(self, mini: _Minibatch, plan: list[list[int]], forwards: int) -> Tally:
        """Forward and backward of every micro-batch. Processes meet in the last one only; those
        with fewer micro-batches fill up with empty ones, so that all do as many."""
        tally = Tally()
        self.optimizer.zero_grad(set_to_none=True)
        for number in range(forwards):
            last = number == forwards - 1
            try:
                with nullcontext() if last else self.distributed.no_sync(self.module):
                    rows = plan[number] if number < len(plan) else []
                    loss = self._loss(mini, rows, tally) if rows else self._nothing(mini.spare)
                    if last and not self.distributed.sharded:
                        loss = loss + self._all_parameters()
                    # Gradients are averaged over processes, the loss is a sum over them.
                    self.distributed.backward(loss * self.distributed.world)
            except torch.OutOfMemoryError as error:
                if self.distributed.sharded or (last and self.distributed.world > 1):
                    raise CohortError(
                        f"out of memory while the other processes wait: lower "
                        f"learner.token_budget, now {self.token_budget} ({error})"
                    ) from error
                raise
        return tally

    def _loss(self, mini: _Minibatch, rows: list[int], tally: Tally) -> Tensor:
        """This micro-batch's share of the minibatch's loss; what it shows goes to `tally`."""
        part, share = take(mini.batch, rows), mini.scale[rows]
        evaluation = self.policy.evaluate(part, entropy=True, temperature=self._temperature)
        per_action, metrics = self.recipe.loss(evaluation, part)
        tally.sum("surrogate", masked_sum(per_action.detach(), share))
        # Weights first: they are meant for the loss, not for what other modifiers add to it.
        for modifier in sorted(self.recipe.modifiers, key=lambda one: not one.scales_loss):
            per_action, more = modifier.on_loss(per_action, evaluation, part)
            metrics = metrics | more
        loss = masked_sum(per_action, share)
        actions = part.mask * part.weight
        if evaluation.entropy is not None:
            tally.mean("entropy", evaluation.entropy, actions)
        for name, value in metrics.items():
            tally.mean(name, value, actions)
        tally.sum("loss", loss.detach())
        tally.sum("tokens", actions.sum())
        if mini.first and self.recipe.rollouts.agent.samples:
            gap = (evaluation.logprobs.detach() - part.sampled_logprobs).abs()
            tally.mean("logprob_gap_mean", gap, actions)
            tally.maximum("logprob_gap_max", gap, part.mask)
        return loss

    def _nothing(self, spare: Batch) -> Tensor:
        """A forward that adds 0 to every gradient."""
        return self.policy.evaluate(spare, temperature=self._temperature).logprobs.sum() * 0.0

    def _all_parameters(self) -> Tensor:
        """0, with every parameter in its graph: one that no row used (a vision tower in a batch
        of text) must have a gradient of 0 everywhere, or processes would not agree on it."""
        used = [p for p in self.module.parameters() if p.requires_grad]
        return torch.stack([p.reshape(-1)[0].float() for p in used]).sum().cpu() * 0.0

    @torch.no_grad()
    def _logprobs(self, batch: Batch) -> Tensor:
        """f[B, T] of the policy as it is, 0 outside the mask."""
        logprobs = torch.zeros_like(batch.sampled_logprobs)
        rows = batch.mask.any(-1).nonzero().flatten().tolist()
        plan = self._plan(batch, rows)
        forwards = len(plan)
        if self.distributed.sharded:
            forwards = max(self.distributed.gather_objects(forwards))
        for number in range(forwards):
            part = plan[number] if number < len(plan) else [int(batch.length.argmin())]
            seen = self.policy.evaluate(take(batch, part), temperature=self._temperature)
            if number < len(plan):
                logprobs[part] = seen.logprobs.to(logprobs.dtype)
        return logprobs


def _optimizer(
    recipe: Recipe, module: torch.nn.Module, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only. Raises `CohortError` if nothing is trainable."""
    settings = recipe.learner
    trainable = [p for p in module.parameters() if p.requires_grad]
    if not trainable:
        raise CohortError("the policy has no trainable parameter")
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        fused=device.type in _FUSED,
    )
