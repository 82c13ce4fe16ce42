"""The border between rewards and a run: whatever reward code does, each rollout gets a `Score`.

A fault (it raised, hung, crashed, was not finite, had the wrong length) is data: the sample's
value is None, it is counted, and too large a share of faults stops the run with a report.
What is not a reward's fault, a missing package or a dead engine, is raised as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pickle
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config import MODELS, Scoring
from trainer.engines.base import Request, Sampling
from trainer.errors import CohortError, MissingService, RewardFaults
from trainer.isolation import Pool, open_pool
from trainer.ops.lean import lean_prompt, lean_rollout
from trainer.ops.verdict import describe, judged
from trainer.rewards.base import IsolatedReward, Reward, flatten
from trainer.rollouts.base import seed_of
from trainer.types import Group, Prompt, Rollout, Score, ScoreStatus, Status
from trainer.worker import Graded, Work

if TYPE_CHECKING:
    from PIL.Image import Image

    from trainer.engines.base import Engine
    from trainer.reference import ReferenceModel
    from trainer.renderer import Renderer

FIRST_CHECK = 32
"""Samples seen before the fault budget is looked at: one early fault is no trend."""
UNPLAYED = (Status.ENV_ERROR, Status.TIMEOUT, Status.ABORTED)
"""Rollouts that ended through no doing of the policy: not scored, no fault of the reward."""


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
        self, group: Group, step: int, *, reward: Reward | None = None, log: bool = True
    ) -> list[Score]:
        """Sets `score` of every rollout and returns the scores; the group's `baseline` is scored
        as a group of its own. `reward` replaces the run's own, for an evaluation; its faults count
        just the same. `log` keeps what rewards give to `log_metric`.

        Raises `RewardFaults` when more than `fault_budget` of the last `fault_window` samples
        failed, looked at once min(32, fault_window) samples were scored. Never raises for what
        reward code does otherwise.
        """
        if group.baseline is not None:
            alone = Group(group.prompt, [group.baseline])
            await self.score_group(alone, step, reward=reward, log=False)
        played = [r for r in group.rollouts if r.status not in UNPLAYED]
        asked = Group(group.prompt, played)
        scored = await self.border(reward or self.reward, asked, step, log=log)
        results = iter(scored)
        scores = []
        for number, rollout in enumerate(group.rollouts):
            if rollout.status in UNPLAYED:
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
        self, reward: Reward, group: Group, step: int, *, log: bool = True
    ) -> list[Score]:
        """One checked score per rollout; raises `CohortError` alone.

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
                border = _Border(self, group.prompt, step, clock, log=log)
                returned = await reward.score(group, border)
        except TimeoutError as error:
            if not clock.expired():
                return _all(rollouts, ScoreStatus.RAISED, describe(error))
            reason = f"{reward.name()} took more than {limit:g} s for {len(rollouts)} rollouts"
            return _all(rollouts, ScoreStatus.TIMEOUT, reason)
        except CohortError:
            raise
        except (Exception, SystemExit) as error:  # the reward border
            return _all(rollouts, ScoreStatus.RAISED, describe(error))
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


class _Border:
    """`RewardContext` of one reward scoring one group."""

    def __init__(
        self, scorer: Scorer, prompt: Prompt, step: int, clock: asyncio.Timeout, *, log: bool
    ):
        self.step, self.total_steps = step, scorer.total_steps
        self.rng = random.Random(seed_of(scorer.seed, prompt.serial, "reward"))
        self._scorer, self._prompt, self._clock, self._log = scorer, prompt, clock, log
        self._waiting = 0
        self._left = 0.0
        self._continued: Counter[tuple[int, ...]] = Counter()

    async def score(self, reward: Reward, group: Group) -> list[Score]:
        with self.waiting():
            return await self._scorer.border(reward, group, self.step, log=self._log)

    async def isolate(self, reward: IsolatedReward, group: Group) -> list[Score]:
        with self.waiting():
            count = len(group.rollouts)
            size = 1 if reward.pointwise else max(1, count)
            units = -(-count // size)
            # A group is one request while other groups keep the workers busy.
            requests = min(units, max(1, self._scorer.pool.idle.qsize()))
            bounds = [units * i // requests for i in range(requests + 1)] if requests else []
            blob = pickle.dumps(reward)
            seen = any("images" in need.split("|") for need in reward.needs)
            prompt = group.prompt if seen else lean_prompt(group.prompt)
            limit = (self._scorer.config.deadline + reward.own_seconds) * size
            shared = (blob, prompt, size, limit)
            grading = [
                self._grade(*shared, range(a, b), group.rollouts[a * size : b * size])
                for a, b in itertools.pairwise(bounds)
            ]
            return [score for scores in await asyncio.gather(*grading) for score in scores]

    async def _grade(
        self,
        blob: bytes,
        prompt: Prompt,
        size: int,
        limit: float,
        units: range,
        rollouts: list[Rollout],
    ) -> list[Score]:
        """Scores of the units with these numbers, `size` rollouts and at most `limit` seconds
        each, in one request."""
        scorer = self._scorer
        try:
            sent = [replace(lean_rollout(rollout), score=None) for rollout in rollouts]
            shipped = pickle.dumps(Group(prompt, sent))
        except Exception as error:  # the reward border: data rows and artifacts hold anything
            if len(units) > 1:  # one of them only, perhaps
                alone = [
                    self._grade(
                        blob, prompt, size, limit, units[i : i + 1], rollouts[i * size :][:size]
                    )
                    for i in range(len(units))
                ]
                return [score for scores in await asyncio.gather(*alone) for score in scores]
            reason = f"cannot be sent to a worker: {describe(error)}"
            return _all(rollouts, ScoreStatus.RAISED, reason)
        seeds = tuple(seed_of(scorer.seed, prompt.serial, unit, "grade") for unit in units)
        work = Work(blob, shipped, self.step, self.total_steps, seeds)
        scores: list[Score] = []
        for reply in await scorer.pool.run(work, limit):
            unit = rollouts[len(scores) : len(scores) + size]
            if isinstance(reply, Graded):
                scorer.note(reply, unit, log=self._log)
                scores += reply.scores
            elif reply.missing:
                raise MissingService(reply.reason)
            else:
                scores += _all(unit, reply.status, reply.reason)
        return scores

    async def logprobs(
        self, rows: list[tuple[list[int], dict[str, Any]]], model: str = "policy"
    ) -> list[list[float]]:
        if model == "reference":
            if self._scorer.reference is None:
                raise MissingService(
                    "ctx.logprobs(model='reference') needs a run with a reference: the reward must "
                    "have 'reference' in its `needs`, and works in `cohort train` and `cohort eval`"
                )
            with self.waiting():
                return await asyncio.to_thread(self._scorer.reference.score, rows)
        if model != "policy":
            raise MissingService(f"ctx.logprobs(model={model!r}): served are policy, reference")
        engine = self._engine("ctx.logprobs")
        with self.waiting():
            return await engine.logprobs(rows)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        encoder = self._model("encoder", "ctx.embed")
        with self.waiting():
            return await encoder.embed(texts)

    async def embed_images(self, images: Sequence[Image]) -> list[list[float]]:
        encoder = self._model("image_encoder", "ctx.embed_images")
        with self.waiting():
            return await encoder.embed(images)

    async def lpips(self, images: Sequence[Image], right: Image) -> list[float]:
        net = self._model("lpips", "ctx.lpips")
        with self.waiting():
            return await net.distances(images, right)

    async def continue_(self, tokens: list[int], inputs: dict[str, Any], **sampling: Any) -> str:
        engine = self._engine("ctx.continue_")
        if self._scorer.renderer is None:
            raise MissingService("ctx.continue_ needs a renderer to turn tokens into text")
        key = tuple(tokens)
        turn = self._continued[key]  # the n-th continuation of this very prefix
        self._continued[key] += 1
        serial = self._prompt.serial
        request = Request(
            tokens=list(tokens),
            sampling=Sampling(**sampling),
            seed=seed_of(self._scorer.seed, serial, "continue", turn, *key),
            inputs=inputs,
            order=(serial, -1, turn),
        )
        with self.waiting():
            completion = await engine.sample(request)
        return self._scorer.renderer.decode(completion.tokens)

    def _model(self, name: str, what: str) -> Any:
        if name not in self._scorer.models:
            raise MissingService(
                f"{what} needs a model: set scoring.{name}, for instance {MODELS[name]}"
            )
        return self._scorer.models[name]

    def _engine(self, what: str) -> Engine:
        if self._scorer.engine is None:
            raise MissingService(
                f"{what} needs an engine, and this run or command has none; a reward that uses it "
                "works in `cohort train` and `cohort eval`"
            )
        return self._scorer.engine

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Stops the deadline; calls may overlap."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._left = (self._clock.when() or loop.time()) - loop.time()
            self._set(None)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._set(loop.time() + self._left)

    def _set(self, when: float | None) -> None:
        with contextlib.suppress(RuntimeError):  # over already: a task the reward left behind
            self._clock.reschedule(when)


def _all(rollouts: list[Rollout], status: ScoreStatus, reason: str) -> list[Score]:
    return [Score.fault(status, reason) for _ in rollouts]
