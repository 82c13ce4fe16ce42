"""The border between rewards and a run: whatever reward code does, each rollout gets a `Score`.

A fault (it raised, hung, crashed, was not finite, had the wrong length) is data: the sample's
value is None, it is counted, and too large a share of faults stops the run with a report.
What is not a reward's fault, a missing package or a dead engine, is raised as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.border import Border
from trainer.config import Scoring
from trainer.errors import CohortError, RewardFaults
from trainer.isolation import Pool, open_pool
from trainer.ops.verdict import describe, failed, judged
from trainer.rewards.base import IsolatedReward, Reward, flatten
from trainer.types import Group, Rollout, Score, ScoreStatus
from trainer.worker import Graded

if TYPE_CHECKING:
    from trainer.ahead import Ahead
    from trainer.engines.base import Engine
    from trainer.reference import ReferenceModel
    from trainer.renderer import Renderer

FIRST_CHECK = 32
"""Samples seen before the fault budget is looked at: one early fault is no trend."""


@dataclass(frozen=True, slots=True)
class Fault:
    status: ScoreStatus
    reason: str
    example: str


class Scorer:
    """Scores groups of one run. Any number of groups may be scored at once."""

    def __init__(
        self,
        reward: Reward,
        config: Scoring,
        pool: Pool,
        *,
        seed: int,
        total_steps: int,
        engine: Engine | None = None,
        renderer: Renderer | None = None,
        reference: ReferenceModel | None = None,
        models: Mapping[str, Any] | None = None,
    ):
        self.reward, self.config, self.pool = reward, config, pool
        self.seed, self.total_steps = seed, total_steps
        self.engine, self.renderer = engine, renderer
        self.reference, self.models = reference, models or {}
        self._window: deque[Fault | None] = deque(maxlen=config.fault_window)
        self._metrics: dict[str, list[float]] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        reward: Reward,
        config: Scoring,
        *,
        seed: int,
        total_steps: int,
        engine: Engine | None = None,
        renderer: Renderer | None = None,
        reference: ReferenceModel | None = None,
        log: Path | None = None,
    ) -> AsyncIterator[Scorer]:
        """Starts the workers if some reward needs them, and ends them; loads the frozen models.
        `log` takes what reward code prints; None: the standard error stream."""
        warm = any(isinstance(inside, IsolatedReward) for inside in flatten(reward))
        models = {name: await getattr(config, name).open() for name in config.services}
        async with open_pool(config.workers, log, warm=warm) as pool:
            yield cls(
                reward,
                config,
                pool,
                seed=seed,
                total_steps=total_steps,
                engine=engine,
                renderer=renderer,
                reference=reference,
                models=models,
            )

    async def score_group(
        self,
        group: Group,
        step: int,
        *,
        reward: Reward | None = None,
        log: bool = True,
        ahead: Ahead | None = None,
    ) -> list[Score]:
        """Sets `score` of every rollout and returns the scores; the group's `baseline` is scored
        as a group of its own. `reward` replaces the run's own, for an evaluation; its faults count
        just the same. `log` keeps what rewards give to `log_metric`. `ahead`: what is scored
        already.

        Raises `RewardFaults` when more than `fault_budget` of the last `fault_window` samples
        failed, looked at once min(32, fault_window) samples were scored. Never raises for what
        reward code does otherwise.
        """
        if group.baseline is not None:
            alone = Group(group.prompt, [group.baseline])
            await self.score_group(alone, step, reward=reward, log=False)
        played = [r for r in group.rollouts if not r.status.unplayed]
        asked = Group(group.prompt, played)
        scored = await self.border(reward or self.reward, asked, step, log=log, ahead=ahead)
        results = iter(scored)
        scores = []
        for number, rollout in enumerate(group.rollouts):
            if rollout.status.unplayed:
                reason = f"the rollout ended with {rollout.status}"
                rollout.score = Score(status=ScoreStatus.NOT_APPLICABLE, reason=reason)
            else:
                rollout.score = next(results)
                self._watch(rollout.score, f"prompt {group.prompt.id}, rollout {number}")
            scores.append(rollout.score)
        self._check_budget()
        return scores

    def drain_metrics(self) -> dict[str, list[float]]:
        """What rewards gave to `log_metric` since the last call, in no fixed order."""
        metrics, self._metrics = self._metrics, {}
        return metrics

    async def border(
        self,
        reward: Reward,
        group: Group,
        step: int,
        *,
        log: bool = True,
        ahead: Ahead | None = None,
    ) -> list[Score]:
        """One checked score per rollout, in order: those that are made `ahead`, and the others;
        raises `CohortError` alone."""
        known = {} if ahead is None else await ahead.take(reward, group)
        rest = [r for place, r in enumerate(group.rollouts) if place not in known]
        made = iter(await self._made(reward, Group(group.prompt, rest), step, log, ahead))
        return [
            known[place] if place in known else next(made) for place in range(len(group.rollouts))
        ]

    async def _made(
        self, reward: Reward, group: Group, step: int, log: bool, ahead: Ahead | None
    ) -> list[Score]:
        """What the reward says.

        The deadline of a group is `deadline` times its rollouts, of the reward's own time: the
        clock stands still while it waits for another reward, a worker or an engine, which have
        limits of their own. Code that blocks the event loop cannot be interrupted: what computes
        belongs into an `IsolatedReward`.
        """
        rollouts = group.rollouts
        if not rollouts:
            return []
        limit = self.config.deadline * len(rollouts)
        clock = asyncio.timeout(limit)
        try:
            async with clock:
                border = Border(self, group.prompt, step, clock, log=log, ahead=ahead)
                returned = await reward.score(group, border)
        except TimeoutError as error:
            if not clock.expired():
                return failed(rollouts, ScoreStatus.RAISED, describe(error))
            reason = f"{reward.name()} took more than {limit:g} s for {len(rollouts)} rollouts"
            return failed(rollouts, ScoreStatus.TIMEOUT, reason)
        except CohortError:
            raise
        except (Exception, SystemExit) as error:  # the reward border
            return failed(rollouts, ScoreStatus.RAISED, describe(error))
        return judged(returned, rollouts)

    def note(self, graded: Graded, rollouts: list[Rollout], *, log: bool) -> None:
        """Keeps what a reward logged beside its scores; columns go to `Rollout.meta["logged"]`."""
        for name, value in graded.metrics.items() if log else ():
            self._metrics.setdefault(name, []).append(value)
        for name, values in graded.columns.items():
            for rollout, value in zip(rollouts, values, strict=False):
                rollout.meta.setdefault("logged", {})[name] = value

    def _watch(self, score: Score, example: str) -> None:
        fault = Fault(score.status, score.reason, example) if score.status.is_fault else None
        self._window.append(fault)

    def _check_budget(self) -> None:
        seen, config = len(self._window), self.config
        faults = [fault for fault in self._window if fault]
        if seen < min(FIRST_CHECK, config.fault_window):
            return
        if len(faults) <= config.fault_budget * seen:
            return
        tally = Counter((fault.status, fault.reason) for fault in faults)
        examples = {(fault.status, fault.reason): fault.example for fault in faults}
        lines = [
            f"  {count:>4} x {status}: {reason}  (for instance {examples[status, reason]})"
            for (status, reason), count in tally.most_common(5)
        ]
        if len(tally) > 5:
            rest = len(faults) - sum(count for _, count in tally.most_common(5))
            lines.append(f"  {rest:>4} x {len(tally) - 5} other reasons")
        raise RewardFaults(
            f"reward {self.reward.name()!r} failed to score {len(faults)} of the last {seen} "
            f"samples ({len(faults) / seen:.0%}, scoring.fault_budget is "
            f"{config.fault_budget:.0%}):\n" + "\n".join(lines) + "\n"
            "Mend the reward (`cohort score --reward ... rows.jsonl` tries it alone), or raise "
            "scoring.deadline or scoring.fault_budget."
        )
