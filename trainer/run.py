"""Opens everything a run needs, and closes it in reverse order, whatever happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from trainer.buffer import Buffer, check_lag
from trainer.checkpoint import Checkpoints, seed_everything
from trainer.clock import Clock
from trainer.context import Context
from trainer.distributed import Distributed
from trainer.errors import ConfigError, DataError
from trainer.learner import Learner, policy_job
from trainer.monitoring import Monitors
from trainer.monitors.base import Tracing
from trainer.reference import ReferenceModel
from trainer.run_folder import folder_of, prepare_folder
from trainer.run_state import load_run, own_state, save_run
from trainer.scoring import Scorer
from trainer.signal import SignalWatch
from trainer.stage_models import in_place
from trainer.summarize import Gathered, lean
from trainer.tracing import Tracer
from trainer.trainees import Trainees
from trainer.weights.base import probe_rows

if TYPE_CHECKING:
    from trainer.config import Recipe
    from trainer.learning import Trainee
    from trainer.prompts.base import Stream
    from trainer.types import Batch, Group, Prompt
    from trainer.weights.base import Row


@dataclass
class Run:
    """The live parts of one stage of one recipe, on one process.

    `step` counts finished updates; it is also the version of the published weights.
    """

    recipe: Recipe
    context: Context
    distributed: Distributed
    learner: Learner
    reference: ReferenceModel | None
    scorer: Scorer
    buffer: Buffer
    stream: Stream
    heldout: Sequence[Prompt]
    monitors: Monitors
    checkpoints: Checkpoints
    probe: list[Row]
    tracer: Tracer | None = None
    clock: Clock = field(default_factory=Clock)
    signal: SignalWatch = field(init=False)
    step: int = 0
    replay: list[Prompt] = field(default_factory=list)
    """Prompts that were in flight when the checkpoint was written: they start first."""

    def __post_init__(self) -> None:
        self.signal = SignalWatch(self.recipe.learner.no_signal_steps)
        self._began = time.perf_counter()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, recipe: Recipe, *, fresh: bool = False, training: bool = True
    ) -> AsyncIterator[Run]:
        """Resources for `recipe`, restored from its newest whole checkpoint unless `fresh`.

        `training=False` leaves the run folder as it is, loads no checkpoint and logs nothing: for
        evaluations. Raises `ConfigError` if the folder holds a run of another recipe.
        """
        recipe = in_place(recipe)
        async with AsyncExitStack() as stack:
            if recipe.threads:
                torch.set_num_threads(recipe.threads)
            distributed = Distributed.start()
            stack.callback(distributed.close)
            seed_everything(recipe.seed, distributed.rank)
            folder = folder_of(recipe)
            if training:
                prepare_folder(recipe, distributed, fresh=fresh)
            checkpoints = Checkpoints(folder, recipe.checkpoint.keep)
            context = Context(
                folder=folder,
                seed=recipe.seed,
                total_steps=recipe.steps,
                device=str(distributed.device),
                rank=distributed.rank,
                world=distributed.world,
                model=recipe.model,
                renderer=recipe.model.renderer(),
                resuming=bool(checkpoints.steps()),
                training=training,
                policy=recipe.policy,
                trainees=Trainees(policy_job(recipe), distributed),
                gather=distributed.gather_objects,
            )
            monitors = await stack.enter_async_context(
                Monitors.open(
                    recipe.monitors if training and distributed.is_main else (), context, recipe
                )
            )
            checkpoints.note = monitors.note
            monitors.note(f"loading the model ({recipe.model.name()}) on {context.device}")
            await stack.enter_async_context(recipe.policy.open(context))
            critic = None
            if recipe.critic is not None and training:
                critic = await stack.enter_async_context(_critic(recipe, context))
            if recipe.samples:
                await stack.enter_async_context(recipe.engine.open(context))
            await stack.enter_async_context(recipe.reward.open(context))
            for other in (recipe.evaluation.reward, recipe.evaluation.best_of):
                if other is not None:
                    await stack.enter_async_context(other.open(context))
            reference, scores = None, recipe.reference_scores
            if scores or "ref_logprobs" in recipe.needs:
                reference = ReferenceModel(recipe.policy, recipe.reference, scores=scores)
            scorer = await stack.enter_async_context(
                Scorer.open(
                    recipe.reward,
                    recipe.scoring,
                    seed=recipe.seed,
                    total_steps=recipe.steps,
                    engine=recipe.engine if recipe.samples else None,
                    renderer=context.renderer,
                    reference=reference if scores else None,
                    log=folder / "reward.log" if training else None,
                )
            )
            run = cls(
                recipe=recipe,
                context=context,
                distributed=distributed,
                learner=Learner(recipe, recipe.policy, reference, distributed, critic),
                reference=reference,
                scorer=scorer,
                buffer=_buffer(recipe, distributed),
                stream=recipe.prompts.stream(recipe.seed),
                heldout=recipe.prompts.heldout(recipe.evaluation.limit),
                monitors=monitors,
                checkpoints=checkpoints,
                probe=_probe(recipe, context),
                tracer=_tracer(recipe, context) if training else None,
            )
            if training:
                run.restore()
            yield run

    def restore(self) -> None:
        """Goes back to the newest whole checkpoint, and forgets what was logged beyond it."""
        step = self.checkpoints.latest()
        if step is not None:
            load_run(self, step)
            self.monitors.note(f"continuing after step {step} of {self.recipe.steps}")
        self.monitors.truncate_after(self.step)

    def steps(self) -> Iterator[int]:
        """Numbers of the steps still to do, 1-based. `step` moves on inside the loop's `update`."""
        yield from range(self.step + 1, self.recipe.steps + 1)

    def next_prompt(self) -> Prompt:
        """The next prompt of this process: every `world`-th of the one global stream."""
        if self.replay:
            return self.replay.pop(0)
        while True:
            prompt = next(self.stream)
            if prompt.serial % self.distributed.world == self.distributed.rank:
                return prompt

    async def take(self) -> list[Group]:
        """The groups of this step that belong to this process, by serial. Raises `EngineError` for
        a token that is older than `rollouts.max_lag` allows."""
        groups = await self.buffer.take()
        if self.recipe.rollouts.agent.samples:
            check_lag(groups, self.step, self.recipe.rollouts.max_lag)
        return groups

    async def learn(self, groups: Sequence[Group], batch: Batch) -> tuple[Batch, dict[str, float]]:
        """Lets co-trained rewards learn, and add the dense rewards they then give."""
        with self.clock.main("reward"):
            batch, report = await self.recipe.reward.learn(groups, batch, self.step + 1)
        return batch, {f"reward_model/{name}": value for name, value in report.items()}

    async def annotate(self, batch: Batch) -> Batch:
        """Fills what plug-ins need (old and reference log-probs), then the advantages; off the
        event loop, which must not stand still while processes wait for each other."""
        with self.clock.main("logprob"):
            batch = await asyncio.to_thread(self.learner.annotate, batch)
            return await asyncio.to_thread(self.learner.advantage, batch)

    async def update(self, batch: Batch) -> dict[str, float]:
        """The optimiser's update, off the event loop, so that rollouts go on beside it."""
        with self.clock.main("train"):
            report = await asyncio.to_thread(self.learner.update, batch, self.step + 1)
            self.step += 1
            if self.reference is not None:
                await asyncio.to_thread(self.reference.after_step, self.step)
        return report

    async def gather(self, groups: Sequence[Group], batch: Batch | None = None) -> Gathered:
        """What all processes did in this step. `batch`: of `groups`, with advantages."""
        dropped, traces = self.buffer.drain_dropped(), []
        if self.tracer is not None:
            with self.clock.main("log"):
                traces = await asyncio.to_thread(
                    self.tracer.trace, self.step, groups, dropped, batch
                )
        own = Gathered(lean(groups), lean(dropped), self.scorer.drain_metrics(), traces)
        parts = await asyncio.to_thread(self.distributed.gather_objects, own)
        return Gathered.merged(parts)

    def observe(self, gathered: Gathered, learned: bool) -> None:
        """Feeds curricula, in serial order on every process, and watches for silence."""
        for group in gathered.played:
            self.stream.observe(group)
        self.signal.observe(gathered.groups, learned)

    async def publish(self) -> dict[str, float]:
        """Brings the weights of `step` into the engine and proves it."""
        if not self.recipe.samples:
            return {}
        recipe = self.recipe
        with self.clock.main("sync"):
            return await recipe.weights.publish(recipe.policy, recipe.engine, self.step, self.probe)

    def log(
        self,
        report: dict[str, Any],
        groups: Sequence[Group],
        traces: Sequence[dict[str, Any]] = (),
    ) -> None:
        """`report` is a function of the recipe; wall-clock figures go separately."""
        phases = self.clock.lap()
        took = sum(phases.values())
        tokens = sum(len(r.completion) for g in groups for r in g.rollouts)
        timing = {f"time/{name}": seconds for name, seconds in phases.items()}
        timing |= {"time/step": took, "time/total": time.perf_counter() - self._began}
        timing["tokens_per_second"] = tokens / took
        self.monitors.traces(self.step, list(traces))
        self.monitors.rollouts(self.step, list(groups))
        self.monitors.log(self.step, report, timing)

    async def save(self) -> None:
        """Writes a checkpoint if one is due."""
        last = self.step == self.recipe.steps
        if last or self.step % self.recipe.checkpoint.every == 0:
            with self.clock.main("save"):
                await asyncio.to_thread(save_run, self, own_state(self))

    async def release(self) -> None:
        """Lets the prompts of the next step start."""
        await self.buffer.release()


@asynccontextmanager
async def _critic(recipe: Recipe, context: Context) -> AsyncIterator[Trainee]:
    """The recipe's critic, open and under training."""
    policy, settings = recipe.critic_policy, recipe.critic
    if policy is None or settings is None or context.trainees is None:
        raise ConfigError("critic: only a training run of a recipe with a critic opens one")
    if settings.model is not None:
        theirs = settings.model.renderer().tokenizer
        if theirs.get_vocab() != context.renderer.tokenizer.get_vocab():
            raise ConfigError(
                "critic.model: it has another vocabulary than the policy, whose tokens it must "
                "read; choose a model of the same family, or leave critic.model out"
            )
    async with policy.open(replace(context, model=settings.model or context.model)):
        yield context.trainees(policy, settings.loss, settings.learner, "critic.learner")


def _buffer(recipe: Recipe, distributed: Distributed) -> Buffer:
    rollouts = recipe.rollouts
    if rollouts.groups_per_step % distributed.world:
        raise ConfigError(
            f"rollouts.groups_per_step: {rollouts.groups_per_step} cannot be shared evenly by "
            f"{distributed.world} processes; make it a multiple"
        )
    share = rollouts.groups_per_step // distributed.world
    return Buffer(share, rollouts.max_lag, rollouts.filters_patience)


def _tracer(recipe: Recipe, context: Context) -> Tracer | None:
    """For the monitors of rank 0, which are asked on every process; the most that one wants."""
    wanted = [t for monitor in recipe.monitors if (t := monitor.tracing) is not None]
    if not wanted:
        return None
    most = Tracing(
        every=min(tracing.every for tracing in wanted),
        groups=max(tracing.groups for tracing in wanted),
        image_side=max(tracing.image_side for tracing in wanted),
    )
    return Tracer(most, context.renderer, context.world)


def _probe(recipe: Recipe, context: Context) -> list[Row]:
    if not recipe.samples:
        return []
    prompts = recipe.prompts.heldout(1) or [next(recipe.prompts.stream(recipe.seed))]
    if not prompts:
        raise DataError("prompts: no rows")
    rendered = context.renderer.render(prompts[0].messages)
    return probe_rows(rendered, recipe.policy.vocabulary, context.renderer.banned_ids)
