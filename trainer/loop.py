"""prompt -> rollout -> reward -> filter -> advantage -> loss -> weights.

One loop for synchronous and asynchronous training: synchronous is `max_lag: 0`. Slots are released
last, so that at lag 0 nothing is in flight while a checkpoint is written.
"""

from __future__ import annotations

import asyncio

from trainer.collate import collate
from trainer.collect import collect
from trainer.config import Recipe
from trainer.evaluate import evaluate
from trainer.run import Run
from trainer.summarize import summarize


async def train(recipe: Recipe, *, fresh: bool = False) -> None:
    """Runs one stage to its last step, from its newest checkpoint if there is one."""
    async with Run.open(recipe, fresh=fresh) as run, asyncio.TaskGroup() as tasks:
        await run.publish()
        if run.step == 0:
            await evaluate(run, 0)
        collectors = [tasks.create_task(collect(run)) for _ in range(run.buffer.slots)]
        for step in run.steps():
            groups = await run.take()
            batch, report = await run.learn(groups, collate(groups))
            batch = await run.annotate(batch)
            report |= await run.update(batch)
            gathered = await run.gather(groups, batch)
            report |= summarize(gathered, step - 1, recipe.evaluation.threshold)
            run.observe(gathered, learned=report["train/active_rows"] > 0)
            report |= await run.publish()
            report |= await evaluate(run, step)
            run.log(report, gathered.played, gathered.traces)
            await run.save()
            await run.release()
        for collector in collectors:
            collector.cancel()
