"""prompt -> rollouts -> scores -> filters -> buffer: what runs beside the optimiser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.ahead import scoring_ahead

if TYPE_CHECKING:
    from trainer.run import Run


async def collect(run: Run) -> None:
    """One collector; as many run at once as the buffer has slots.

    Waits for a slot (freed by `Run.release`), then carries one prompt all the way. Ends only by
    cancellation; an error of the engine or the agent ends the run with its traceback.
    """
    rollouts = run.recipe.rollouts
    while True:
        await run.buffer.reserve()
        prompt = run.next_prompt()
        run.buffer.start(prompt)
        async with scoring_ahead(run.scorer, prompt, lambda: run.step) as ahead:
            with run.clock.beside("generate"):
                group = await rollouts.agent.play(
                    prompt,
                    run.recipe.engine,
                    run.context.renderer,
                    rollouts.sampling,
                    group_size=rollouts.group_size,
                    seed=run.recipe.seed,
                    finished=ahead.finished,
                )
            with run.clock.beside("reward"):
                await ahead.score(group)
        reasons = (rule.why_drop(group) for rule in rollouts.filters)
        if reason := next(filter(None, reasons), None):
            await run.buffer.drop(group, reason)
        else:
            await run.buffer.put(group)
