"""Held-out prompts through the same engine and rewards: sampled and greedy side by side."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from trainer.ahead import scoring_ahead
from trainer.buffer import histogram
from trainer.errors import CheckpointError, ConfigError, RewardFaults
from trainer.models.base import Model
from trainer.models.pretrained import Pretrained
from trainer.monitors.base import prompt_text
from trainer.ops.best_of import best, elected
from trainer.ops.statistics import bootstrap, bootstrap_of, majority, pass_at_k
from trainer.ops.text import stated_answer
from trainer.run import Run
from trainer.run_folder import RESOLVED, folder_of
from trainer.run_state import load_judges, load_policy
from trainer.summarize import lean
from trainer.types import Group, Prompt, Rollout
from trainer.yaml import read_yaml

if TYPE_CHECKING:
    from trainer.config import Recipe
    from trainer.engines.base import Sampling
    from trainer.rewards.base import Figure, Reward

EXAMPLES = 3
_KINDS = (("sampled", ""), ("greedy", "_greedy"))


async def evaluate(run: Run, step: int) -> dict[str, float]:
    """Evaluates if `step` is due; {} otherwise. Tables go to the monitors."""
    config = run.recipe.evaluation
    last = step == run.recipe.steps
    due = step == 0 or last or (config.every > 0 and step % config.every == 0)
    if not due or not run.heldout or not run.recipe.samples:
        return {}
    with run.clock.main("evaluate"):
        table = await measure(run, step)
    run.monitors.evaluation(step, table)
    report = {f"heldout/{config.name}": table["sampled"]["mean"]}
    if table["greedy"]:
        report[f"heldout/{config.name}_greedy"] = table["greedy"]["mean"]
    for name, rows in (table["parts"] | table["figures"]).items():
        part = f"heldout/{config.name}/{name}"
        report |= {f"{part}{end}": rows[kind]["mean"] for kind, end in _KINDS if rows[kind]}
    return report


async def evaluate_checkpoint(recipe: Recipe, checkpoint: str = "latest") -> dict[str, Any]:
    """The table of a finished or interrupted run; nothing in its folder changes.

    `checkpoint`: `latest`, a step, `start` (the run's start weights; the recipe's where there is
    no run yet), or a model folder that transformers' `from_pretrained` loads. Raises
    `CheckpointError` if there is no such checkpoint, or if it is damaged.
    """
    if not recipe.samples:
        raise ConfigError(
            f"stage {recipe.stage!r} replays recorded answers: nothing to evaluate; with "
            "evaluation.agent: single_turn the policy answers held-out prompts"
        )
    resolved = folder_of(recipe) / RESOLVED
    if Path(checkpoint).is_dir():
        recipe = recipe.model_copy(update={"model": Pretrained(path=checkpoint)})
        checkpoint = "start"
    elif resolved.is_file():  # a later stage began with the model that the one before it exported
        model = Model.model_validate(read_yaml(resolved)["model"])
        recipe = recipe.model_copy(update={"model": model})
    async with Run.open(recipe, training=False) as run:
        if checkpoint != "start":
            run.step = _step(run, checkpoint)
            load_policy(run.recipe.policy, run.checkpoints.path(run.step))
            load_judges(run, run.checkpoints.path(run.step))
        await run.publish()
        return await measure(run, run.step)


def _step(run: Run, checkpoint: str) -> int:
    found = run.checkpoints.steps()
    if checkpoint == "latest":
        step = run.checkpoints.latest()
    else:
        step = int(checkpoint) if checkpoint.isdigit() else None
    if step not in found:
        raise CheckpointError(
            f"no checkpoint {checkpoint!r} in {run.checkpoints.folder}; there are: "
            f"{', '.join(map(str, found)) or 'none'}; or name a model folder, or `start`"
        )
    if problem := run.checkpoints.damage(step):
        raise CheckpointError(f"the checkpoint is damaged: {problem}")
    return step


async def measure(run: Run, step: int) -> dict[str, Any]:
    """The table of one evaluation.

    Keys: step, name, sampled and greedy {mean, low, high, n} (95 % bootstrap over prompts; greedy
    may be None), parts {name: {sampled, greedy}} of the reward's parts, so that one evaluation may
    report several measures, figures {name: {sampled, greedy}} of all answers together (mAP),
    "pass@k" and "maj@k" {k: {...}} for k = 1, 2, 4, ... up to `samples`, and with `best_of`
    "best@k" and "vote@k", examples.
    Unscored answers are left out; a prompt without any scored answer does not count.
    """
    config, sampling = run.recipe.evaluation, run.recipe.rollouts.sampling
    drawn = sampling.model_copy(update={"temperature": config.temperature})
    sampled = await _play(run, drawn, config.samples)
    greedy = None
    if config.greedy:
        argmax = sampling.model_copy(update={"temperature": 0.0})
        greedy = await _play(run, argmax, 1)
    if not _means(sampled):
        why = Counter(f"{r.score.status} {r.score.reason}" for g in sampled for r in g.rollouts)
        raise RewardFaults(
            f"none of the answers to {len(sampled)} held-out prompts could be scored: "
            f"{histogram(why)}. Try the reward alone with `cohort score`"
        )
    answers = {"sampled": sampled, "greedy": greedy or []}
    table = {
        "step": step,
        "name": config.name,
        "sampled": bootstrap(_means(sampled)),
        "greedy": bootstrap(_means(greedy)) if greedy else None,
        "parts": _parts(sampled, greedy),
        "figures": await asyncio.to_thread(figures, config.reward or run.recipe.reward, answers),
        "pass@k": {},
        "maj@k": {},
        "examples": _examples(sampled, greedy),
    }
    for k in _powers(config.samples):
        rows = [g for group in sampled if len(g := _scored(group)) == config.samples]
        if rows:
            right = [sum(v >= config.threshold for v in _values(row)) for row in rows]
            table["pass@k"][k] = bootstrap([pass_at_k(config.samples, c, k) for c in right])
            table["maj@k"][k] = bootstrap([_majority(row, k) for row in rows])
            if config.best_of is not None:
                table.setdefault("best@k", {})[k] = bootstrap([_chosen(row, k) for row in rows])
                table.setdefault("vote@k", {})[k] = bootstrap([_voted(row, k) for row in rows])
    return table


async def _play(run: Run, sampling: Sampling, size: int) -> list[Group]:
    """Scored groups of all held-out prompts, each process taking its share."""
    share = run.heldout[run.distributed.rank :: run.distributed.world]
    agent = run.recipe.evaluation.agent or run.recipe.rollouts.agent

    async def one(prompt: Prompt) -> Group:
        reward = run.recipe.evaluation.reward
        # log: what rewards log here does not belong to the training steps around
        scoring = scoring_ahead(run.scorer, prompt, lambda: run.step, reward=reward, log=False)
        async with scoring as ahead:
            group = await agent.evaluated.play(
                prompt,
                run.recipe.engine,
                run.context.renderer,
                sampling,
                group_size=size,
                seed=run.recipe.seed,
                finished=ahead.finished,
            )
            await ahead.score(group)
        return group

    groups = await asyncio.gather(*(one(prompt) for prompt in share))
    if (judge := run.recipe.evaluation.best_of) is not None:
        for group in groups:  # in turn: waiting would count as slowness
            judged = await run.scorer.border(judge, group, run.step, log=False)
            for rollout, score in zip(group.rollouts, judged, strict=True):
                rollout.meta["judged"] = -math.inf if score.value is None else score.value
    gathered = await asyncio.to_thread(run.distributed.gather_objects, lean(groups))
    merged = [group for part in gathered for group in part]
    return sorted(merged, key=lambda group: group.prompt.serial, reverse=True)


def _scored(group: Group) -> list[Rollout]:
    return [r for r in group.rollouts if r.score is not None and r.score.value is not None]


def _means(groups: Sequence[Group]) -> list[float]:
    rows = [_scored(group) for group in groups]
    return [fmean(_values(row)) for row in rows if row]


def _parts(sampled: Sequence[Group], greedy: Sequence[Group] | None) -> dict[str, dict[str, Any]]:
    """Per part and kind of sampling what `mean` is for the value; None where no answer has it."""
    found: dict[str, dict[str, Any]] = {}
    for kind, groups in (("sampled", sampled), ("greedy", greedy or ())):
        rows = [[r.score.parts for r in _scored(group) if r.score] for group in groups]
        for name in sorted({name for row in rows for parts in row for name in parts}):
            columns = [[v for parts in row if (v := parts.get(name)) is not None] for row in rows]
            means = [fmean(column) for column in columns if column]
            table = found.setdefault(name, dict.fromkeys(("sampled", "greedy")))
            table[kind] = bootstrap(means) if means else None
    return {name: kinds for name, kinds in found.items() if any(kinds.values())}


def figures(reward: Reward, played: Mapping[str, Sequence[Group]]) -> dict[str, dict[str, Any]]:
    """Per measure and kind of sampling. The k-th answers to all prompts are one data set; with
    several samples the mean over k."""
    found: dict[str, dict[str, Any]] = {}
    for kind, groups in played.items():
        rows = [(group.prompt, row) for group in groups if (row := _scored(group))]
        answers = [(prompt, rollout) for prompt, row in rows for rollout in row]
        ends = accumulate(len(row) for _, row in rows)
        places = [range(end - len(row), end) for end, (_, row) in zip(ends, rows, strict=True)]
        for name, figure in reward.figures(answers).items() if answers else ():
            table = found.setdefault(name, dict.fromkeys(played))
            table[kind] = bootstrap_of(partial(_mean_of_sets, figure, places), len(places))
    return {name: kinds for name, kinds in found.items() if any(kinds.values())}


def _mean_of_sets(figure: Figure, places: Sequence[range], prompts: Sequence[int]) -> float | None:
    """`places`: of the answers to each prompt."""
    most = max(len(places[i]) for i in prompts)
    sets = [[places[i][k] for i in prompts if k < len(places[i])] for k in range(most)]
    values = [value for one in sets if (value := figure(one)) is not None]
    return fmean(values) if values else None


def _values(rollouts: Sequence[Rollout]) -> list[float]:
    return [r.score.value for r in rollouts if r.score and r.score.value is not None]


def _majority(row: Sequence[Rollout], k: int) -> float:
    return majority([stated_answer(r.reply) for r in row], _values(row), k)


def _judged(row: Sequence[Rollout], k: int) -> list[float]:
    return [r.meta["judged"] for r in row[:k]]


def _chosen(row: Sequence[Rollout], k: int) -> float:
    return _values(row)[best(_judged(row, k))]


def _voted(row: Sequence[Rollout], k: int) -> float:
    answers = [stated_answer(r.reply) for r in row[:k]]
    return _values(row)[elected(answers, _judged(row, k))]


def _powers(n: int) -> list[int]:
    powers = [1]
    while powers[-1] * 2 <= n:
        powers.append(powers[-1] * 2)
    return powers if powers[-1] == n else [*powers, n]


def _examples(sampled: Sequence[Group], greedy: Sequence[Group] | None) -> list[dict[str, Any]]:
    rows = []
    for index, group in enumerate(sampled[:EXAMPLES]):
        first = group.rollouts[0]
        rows.append(
            {
                "id": group.prompt.id,
                "prompt": prompt_text(group.prompt.messages),
                "answer": group.prompt.answer,
                "sampled": first.reply,
                "greedy": greedy[index].rollouts[0].reply if greedy else None,
                "reward": first.score.value if first.score else None,
            }
        )
    return rows
