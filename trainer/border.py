"""What a reward may ask for while it scores a group: the `RewardContext` of a run."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pickle
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trainer.config import MODELS
from trainer.engines.base import Request, Sampling
from trainer.errors import MissingService
from trainer.ops.lean import lean_prompt, lean_rollout
from trainer.ops.verdict import describe, failed
from trainer.rollouts.base import seed_of
from trainer.types import Group, Prompt, Rollout, Score, ScoreStatus
from trainer.worker import Graded, Work

if TYPE_CHECKING:
    from PIL.Image import Image

    from trainer.ahead import Ahead
    from trainer.engines.base import Engine
    from trainer.rewards.base import IsolatedReward, Reward
    from trainer.scoring import Scorer


class Border:
    """`RewardContext` of one reward scoring one group."""

    def __init__(
        self,
        scorer: Scorer,
        prompt: Prompt,
        step: int,
        clock: asyncio.Timeout,
        *,
        log: bool,
        ahead: Ahead | None,
    ):
        self.step, self.total_steps = step, scorer.total_steps
        self.rng = random.Random(seed_of(scorer.seed, prompt.serial, "reward"))
        self._scorer, self._prompt, self._clock, self._log = scorer, prompt, clock, log
        self._ahead = ahead
        self._waiting = 0
        self._left = 0.0
        self._continued: Counter[tuple[int, ...]] = Counter()

    async def score(self, reward: Reward, group: Group) -> list[Score]:
        with self.waiting():
            return await self._scorer.border(
                reward, group, self.step, log=self._log, ahead=self._ahead
            )

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
            seeds = self._seeds(group.rollouts) if reward.pointwise else [self._seed(0)]
            shared = (blob, prompt, size, limit)
            grading = [
                self._grade(*shared, seeds[a:b], group.rollouts[a * size : b * size])
                for a, b in itertools.pairwise(bounds)
            ]
            return [score for scores in await asyncio.gather(*grading) for score in scores]

    async def _grade(
        self,
        blob: bytes,
        prompt: Prompt,
        size: int,
        limit: float,
        seeds: list[int],
        rollouts: list[Rollout],
    ) -> list[Score]:
        """Scores of one unit for each seed, `size` rollouts and at most `limit` seconds each, in
        one request."""
        scorer = self._scorer
        try:
            sent = [replace(lean_rollout(rollout), score=None) for rollout in rollouts]
            shipped = pickle.dumps(Group(prompt, sent))
        except Exception as error:  # the reward border: data rows and artifacts hold anything
            if len(seeds) > 1:  # one of them only, perhaps
                alone = [
                    self._grade(blob, prompt, size, limit, [seed], rollouts[i * size :][:size])
                    for i, seed in enumerate(seeds)
                ]
                return [score for scores in await asyncio.gather(*alone) for score in scores]
            reason = f"cannot be sent to a worker: {describe(error)}"
            return failed(rollouts, ScoreStatus.RAISED, reason)
        work = Work(blob, shipped, self.step, self.total_steps, tuple(seeds))
        scores: list[Score] = []
        for reply in await scorer.pool.run(work, limit):
            unit = rollouts[len(scores) : len(scores) + size]
            if isinstance(reply, Graded):
                scorer.note(reply, unit, log=self._log)
                scores += reply.scores
            elif reply.missing:
                raise MissingService(reply.reason)
            else:
                scores += failed(unit, reply.status, reply.reason)
        return scores

    def _seeds(self, rollouts: list[Rollout]) -> list[int]:
        """By a rollout's own number, and by how many of that number came before it: the same
        whatever part of its group it is graded with."""
        before: Counter[int] = Counter()
        seeds = []
        for place, rollout in enumerate(rollouts):
            number = place if rollout.member is None else rollout.member
            seeds.append(self._seed(number, before[number]))
            before[number] += 1
        return seeds

    def _seed(self, *unit: int) -> int:
        return seed_of(self._scorer.seed, self._prompt.serial, *unit, "grade")

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
