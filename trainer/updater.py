"""Updates of one model: epochs x minibatches x micro-batches, blind to the algorithm.

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
from trainer.ops.across import Across
from trainer.ops.aggregation import coefficients
from trainer.ops.batches import take
from trainer.ops.masked import masked_sum
from trainer.ops.schedule import learning_rate
from trainer.ops.tally import Tally
from trainer.types import Evaluation

if TYPE_CHECKING:
    from trainer.distributed import Distributed
    from trainer.learning import Optimizer
    from trainer.losses.base import Loss
    from trainer.modifiers.base import Modifier
    from trainer.policies.base import Policy
    from trainer.types import Batch

SKIPPED_IN_A_ROW = 5
"""Updates without a finite gradient after which the run stops."""
_FUSED = ("cuda", "cpu", "mps", "xpu")


@dataclass(frozen=True, slots=True)
class Job:
    """What a model is trained towards."""

    loss: Loss
    modifiers: Sequence[Modifier]
    optimizer: Optimizer
    seed: int
    steps: int
    groups_per_step: int
    """Over all processes."""
    max_tokens: int
    """Of an answer: the default of `loss.length_norm`."""
    temperature: float
    compares_engine: bool = False
    """Report the gap between the model and `sampled_logprobs`."""
    entropy: bool = True
    """Report the entropy."""
    where: str = "learner"
    """Key of the settings in the recipe, for errors."""


@dataclass(frozen=True, slots=True)
class _Minibatch:
    """What one update trains on, on this process."""

    batch: Batch
    """May have no row at all: its groups are then on other processes."""
    scale: Tensor  # f[B, T] coefficients of the per-action losses
    spare: Batch
    """One short row to run through the model when there is nothing to do."""
    first: bool
    """True while the weights are still those that the batch was annotated with."""
    seen: Tensor  # f[B, T] the log-probs of this minibatch's own forwards


class Updater:
    """Turns batches into weights. All methods are synchronous and, with several processes, are
    called by all of them in the same order."""

    def __init__(self, policy: Policy, job: Job, distributed: Distributed):
        """Builds the optimiser over the policy's trainable parameters and wraps both."""
        self.policy, self.job, self.distributed = policy, job, distributed
        optimizer = _optimizer(job.optimizer, policy.module, distributed.device)
        self.module, self.optimizer = distributed.prepare(policy.module, optimizer)
        policy.attach(self.module)
        self.token_budget = job.optimizer.token_budget
        self._skipped_in_a_row = 0

    def update(self, batch: Batch, step: int, seen: Tensor | None = None) -> dict[str, float]:
        """One pass over a batch that has all its fields; `step` counts from 1. `seen` f[B, T]: see
        `learning.Trainee.update`.

        Report, over all processes: `loss` and `surrogate` (the loss before modifiers) as mean over
        updates; metrics of loss and modifiers, and `entropy`, as mean over the trained actions;
        `logprob_gap_mean` and `_max`, raw |policy - engine| per action before any weight, of the
        first minibatch (`Learner` reports them of all actions where it recomputes log-probs);
        `grad_norm` (before clipping), `lr`, `tokens` (actions trained on), `updates`,
        `skipped_updates`.

        An update whose gradient is not finite is skipped; several in a row raise `CohortError`.
        """
        rate = self._set_rate(step)
        tally = Tally()
        norms: list[float] = []
        for epoch in range(self.job.optimizer.epochs):
            for place, rows in enumerate(self._split(batch, step, epoch)):
                drawn = random.Random(repr((self.job.seed, step, epoch, place)))
                mini = self._minibatch(batch, rows, drawn, first=not norms)
                tally.add(self._gradient(mini))
                if seen is not None and epoch == 0:
                    seen[rows] = mini.seen
                norms.append(self._apply())
        whole = Tally.merged(self.distributed.gather_objects(tally.export()))
        report = dict(whole.report())
        for name in ("loss", "surrogate"):
            report[name] = whole.sums.get(name, 0.0) / len(norms)
        finite = [norm for norm in norms if math.isfinite(norm)]
        report["grad_norm"] = sum(finite) / len(finite) if finite else math.nan
        report["skipped_updates"] = float(len(norms) - len(finite))
        report["updates"] = float(len(finite))
        report["lr"] = rate
        return report

    @torch.no_grad()
    def evaluate(self, batch: Batch, *, entropy: bool = False) -> Evaluation:
        """The model as it is, on all rows: eval mode, [B, T], 0 outside the mask."""
        found: dict[str, Tensor] = {}
        rows = batch.mask.any(-1).nonzero().flatten().tolist()
        plan = self._plan(batch, rows)
        forwards = len(plan)
        if self.distributed.sharded:
            forwards = max(self.distributed.gather_objects(forwards))
        for number in range(forwards):
            part = plan[number] if number < len(plan) else [int(batch.length.argmin())]
            seen = self.policy.evaluate(
                take(batch, part), temperature=self.job.temperature, entropy=entropy
            )
            for name in ("logprobs", "entropy", "values"):
                values = getattr(seen, name)
                if values is not None and number < len(plan):
                    whole = found.setdefault(name, torch.zeros_like(batch.sampled_logprobs))
                    whole[part] = values.to(whole.dtype)
        blank = torch.zeros_like(batch.sampled_logprobs)
        return Evaluation(
            logprobs=found.get("logprobs", blank),
            entropy=found.get("entropy", blank if entropy else None),
            values=found.get("values", blank if self.policy.head != "lm" else None),
        )

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
        settings = self.job.optimizer
        rate = learning_rate(
            step - 1,
            lr=settings.lr,
            total_steps=self.job.steps,
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
        count, total = self.job.optimizer.minibatches, self.job.groups_per_step
        rank, world = self.distributed.rank, self.distributed.world
        order = list(range(count))
        random.Random(repr((self.job.seed, step, epoch))).shuffle(order)
        part = [(own * world + rank) * count // total for own in batch.group.tolist()]
        return [[row for row, at in enumerate(part) if at == k] for k in order]

    def _minibatch(
        self, batch: Batch, rows: list[int], drawn: random.Random, *, first: bool
    ) -> _Minibatch:
        loss, mini = self.job.loss, take(batch, rows)
        if "current_logprobs" in loss.needs:
            now = self.evaluate(mini).logprobs
            mini = mini.with_(extra=mini.extra | {"current_logprobs": now})
        world = self.distributed
        across = Across(world.all_reduce_sum, world.gather_objects, drawn, world.rank)
        for plugin in (loss, *self.job.modifiers):
            mini = plugin.on_minibatch(mini, across)
        scale = coefficients(
            mini.mask,
            mini.weight,
            loss.aggregation,
            length_norm=loss.length_norm or self.job.max_tokens,
            local_rows=loss.local_rows,
            count_empty_rows=loss.count_empty_rows,
            all_reduce=self.distributed.all_reduce_sum,
        )
        mini = mini.with_(extra=mini.extra | {"scale": scale})
        spare = take(batch, [int(batch.length.argmin())])
        return _Minibatch(mini, scale, spare, first, torch.zeros_like(mini.sampled_logprobs))

    def _apply(self) -> float:
        """Clips the gradient and takes the optimiser's step; returns the norm before clipping."""
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        norm = self.distributed.clip_grad_norm(parameters, self.job.optimizer.clip_norm)
        if math.isfinite(norm):
            self.optimizer.step()
            self._skipped_in_a_row = 0
        else:
            self._skipped_in_a_row += 1
        self.optimizer.zero_grad(set_to_none=True)
        if self._skipped_in_a_row >= SKIPPED_IN_A_ROW:
            raise CohortError(
                f"{SKIPPED_IN_A_ROW} updates in a row had a gradient that is not finite "
                f"(the last norm: {norm}). Lower {self.job.where}.lr, look for rewards or "
                "log-probs out of range in rollouts.jsonl, or set policy.dtype: float32; the "
                "weights are as before"
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
        modified = any(modifier.changes_loss for modifier in self.job.modifiers)
        moving = batch.mask
        if self.job.loss.zero_advantage_is_zero_gradient and not modified:
            moving = moving & (batch.advantages != 0)
        return moving.any(-1).nonzero().flatten().tolist()

    def _plan(self, batch: Batch, rows: Sequence[int]) -> list[list[int]]:
        """Micro-batches, largest first: memory runs out early or not at all."""
        if not rows:
            return []
        whole = self.job.loss.couples_rows
        plan = (self._whole_groups if whole else self._rows)(batch, rows)
        length = batch.length.tolist()
        return sorted(plan, key=lambda part: -sum(length[row] for row in part))

    def _rows(self, batch: Batch, rows: Sequence[int]) -> list[list[int]]:
        return self.policy.plan(batch, rows, self.token_budget)

    def _whole_groups(self, batch: Batch, rows: Sequence[int]) -> list[list[int]]:
        """A group above the budget is alone."""
        groups: dict[int, list[int]] = {}
        for row in rows:
            groups.setdefault(int(batch.group[row]), []).append(row)
        plan: list[list[int]] = []
        for own in groups.values():
            wider = [*plan[-1], *own] if plan else own
            if plan and len(self._rows(batch, wider)) == 1:
                plan[-1] = wider
            else:
                plan.append(own)
        return plan

    def _finer(
        self, batch: Batch, rows: Sequence[int], plan: Sequence[list[int]], full: str
    ) -> list[list[int]]:
        """A plan with more micro-batches; raises `CohortError` where there is none."""
        whole = self.job.loss.couples_rows
        if all(len(set(batch.group[part].tolist()) if whole else part) <= 1 for part in plan):
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
                        f"{self.job.where}.token_budget, now {self.token_budget} ({error})"
                    ) from error
                raise
        return tally

    def _loss(self, mini: _Minibatch, rows: list[int], tally: Tally) -> Tensor:
        """This micro-batch's share of the minibatch's loss; what it shows goes to `tally`."""
        part, share = take(mini.batch, rows), mini.scale[rows]
        evaluation = self.policy.evaluate(
            part, entropy=self.job.entropy, temperature=self.job.temperature
        )
        mini.seen[rows] = evaluation.logprobs.detach().to(mini.seen)
        per_action, metrics = self.job.loss(evaluation, part)
        tally.sum("surrogate", masked_sum(per_action.detach(), share))
        # Weights first: they are meant for the loss, not for what other modifiers add to it.
        for modifier in sorted(self.job.modifiers, key=lambda one: not one.scales_loss):
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
        if mini.first and self.job.compares_engine:
            gap = (evaluation.logprobs.detach() - part.sampled_logprobs).abs()
            tally.mean("logprob_gap_mean", gap, actions)
            tally.maximum("logprob_gap_max", gap, part.mask)
        return loss

    def _nothing(self, spare: Batch) -> Tensor:
        """A forward that adds 0 to every gradient."""
        seen = self.policy.evaluate(spare, temperature=self.job.temperature)
        total = seen.logprobs.sum()
        return (total if seen.values is None else total + seen.values.sum()) * 0.0

    def _all_parameters(self) -> Tensor:
        """0, with every parameter in its graph: one that no row used (a vision tower in a batch
        of text) must have a gradient of 0 everywhere, or processes would not agree on it."""
        used = [p for p in self.module.parameters() if p.requires_grad]
        return torch.stack([p.reshape(-1)[0].float() for p in used]).sum().cpu() * 0.0


def _optimizer(
    settings: Optimizer, module: torch.nn.Module, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only. Raises `CohortError` if nothing is trainable."""
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
