"""`cohort check RECIPE`: the whole plan of a run before it costs anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from trainer.config import MODELS
from trainer.errors import CohortError, ConfigError, MissingService
from trainer.monitors.base import prompt_text
from trainer.ops.panels import PHASES, duration
from trainer.rewards.base import flatten

if TYPE_CHECKING:
    from trainer.config import Critic, Recipe
    from trainer.plan import Batch, Memory, Serving, Size
    from trainer.types import Prompt

COLUMNS = ("answer", "task", "images")
"""What a reward may need of a `Prompt`, besides `meta.<column>`. Other needs are services."""

SERVICES = ("engine", "reference")
"""What every run gives to its rewards."""

_OLD_LOGPROBS = {
    "recompute": "a pass before the update",
    "sampled": "the engine's: the ratio itself corrects the distance to the policy",
    "none": "the update's own: the ratio is 1",
}

ROWS = 16
"""Training prompts that are read and rendered."""


@dataclass
class Check:
    """The page to print, and what would stop the run."""

    page: list[RenderableType] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __rich__(self) -> RenderableType:
        verdict = Text("ready to run", "bold green")
        if self.problems:
            verdict = Text("\n".join(f"✗ {line}" for line in self.problems), "bold red")
        return Group(*self.page, Text(), verdict)


def check_recipe(recipe: Recipe) -> Check:
    """Reads the first rows of the data and the model's configuration; loads no weights."""
    check = Check()
    check.page.append(Rule(f"{recipe.name} · {recipe.stage}"))
    check.page.append(_settings(recipe))
    try:
        check.problems += missing_needs(recipe) + unready(recipe)
        stream = recipe.prompts.stream(recipe.seed)
        prompts = [next(stream) for _ in range(ROWS)]
        check.page.append(_data(recipe, prompts))
        page, problems = _plan(recipe, prompts)
        check.page.append(page)
        check.problems += problems
    except CohortError as error:
        check.problems.append(str(error))
    except OSError as error:  # transformers reports a model it cannot find or reach like this
        check.problems.append(f"model: {error}")
    return check


def missing_needs(recipe: Recipe) -> list[str]:
    """One line for every column or service that the rewards need and the run does not have."""
    columns = recipe.prompts.columns()
    services = (*SERVICES, *recipe.scoring.services)
    lines = []
    rewards = {"reward": recipe.reward, "evaluation.reward": recipe.evaluation.reward}
    for key, reward in rewards.items():
        if reward is None:
            continue
        for need in sorted(reward.needs):
            accepted = need.split("|")
            if columns.union(services).intersection(accepted):
                continue
            column = any(one in COLUMNS or one.startswith("meta.") for one in accepted)
            kind, owner = ("column", recipe.prompts.name()) if column else ("service", "this run")
            has = ", ".join(sorted(columns if column else services)) or "none"
            wanted = " or ".join(map(repr, accepted))
            line = f"{key}: {reward.name()} needs the {kind} {wanted}; {owner} has: {has}"
            lines.append(f"{line}; set scoring.{need}: {MODELS[need]}" if need in MODELS else line)
    return lines


def unready(recipe: Recipe) -> list[str]:
    """One line for every reward that cannot run on this machine: a sandbox that does not stand, a
    judge without its vLLM."""
    lines = []
    for key, reward in (("reward", recipe.reward), ("evaluation.reward", recipe.evaluation.reward)):
        for inside in [] if reward is None else flatten(reward):
            try:
                inside.ready()
            except (ConfigError, MissingService) as error:
                lines.append(f"{key}: {inside.name()}: {error}")
    return lines


def _grid() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _settings(recipe: Recipe) -> Table:
    grid = _grid()
    for key in ("model", "policy", "engine", "weights", "prompts", "reward", "advantage", "loss"):
        grid.add_row(key, getattr(recipe, key).name())
    if recipe.modifiers:
        grid.add_row("modifiers", ", ".join(modifier.name() for modifier in recipe.modifiers))
    if recipe.rollouts.filters:
        grid.add_row("filters", ", ".join(one.name() for one in recipe.rollouts.filters))
    if recipe.critic is not None:
        grid.add_row("critic", _critic(recipe.critic, recipe.steps))
    elif recipe.policy.head == "both":
        grid.add_row("critic", "a value head on the policy (shared trunk)")
    passes = ", ".join(sorted(recipe.needs - {"sampled_logprobs"}))
    grid.add_row("passes", passes or "none besides the update's own")
    grid.add_row("old log-probs", _OLD_LOGPROBS[recipe.old_logprobs])
    lag = recipe.rollouts.max_lag
    grid.add_row("staleness", f"up to {lag} version(s)" if lag else "none: synchronous")
    return grid


def _critic(critic: Critic, steps: int) -> str:
    settings, first = critic.learner, critic.warmup_steps
    alone = f", alone in the first {first} steps" if first else ""
    if first >= steps:
        alone += f": the policy never learns in {steps}"
    return (
        f"{critic.loss.name()}, lr {settings.lr:g}, {settings.epochs} epochs x "
        f"{settings.minibatches} minibatches{alone}"
    )


def _data(recipe: Recipe, prompts: list[Prompt]) -> RenderableType:
    grid = _grid()
    heldout = recipe.prompts.heldout(recipe.evaluation.limit)
    every = (
        f"every {recipe.evaluation.every} steps" if recipe.evaluation.every else "first and last"
    )
    grid.add_row("columns", ", ".join(sorted(recipe.prompts.columns())))
    grid.add_row("held-out", f"{len(heldout)} prompts, {every}")
    for prompt in prompts[:3]:
        answer = "" if prompt.answer is None else f"  ->  {prompt.answer}"
        text = prompt_text(prompt.messages).strip().replace("\n", " ⏎ ")
        grid.add_row("row", Text(f"{text[:200]}{answer}"))
    return Group(Text("\ndata", "bold"), grid)


def _plan(recipe: Recipe, prompts: list[Prompt]) -> tuple[RenderableType, list[str]]:
    from trainer import plan

    world = int(os.environ.get("WORLD_SIZE", "1"))
    device, half = _device(recipe)
    size = plan.size_of(recipe)
    lengths = plan.prompt_lengths(recipe, prompts)
    batch = plan.batch_of(recipe, lengths, world)
    serving = plan.serving_of(recipe, size, batch, device, _device_memory(device))
    companions = plan.companions_of(recipe)
    memory = plan.memory_of(recipe, size, batch, half, serving, companions)
    tables: list[RenderableType] = [
        Text("\nmodel", "bold"),
        _model(recipe, size, half),
        Text("\none step", "bold"),
        _batch(recipe, batch, lengths),
        Text(f"\nmemory per device ({device})", "bold"),
        _memory(memory, size, batch, half, alone=plan.adapter_alone(recipe)),
    ]
    problems = []
    if serving is not None:
        tables += [Text("\nvLLM", "bold"), _serving(serving)]
        problems = _too_small(serving, max(lengths, default=0) + batch.answer_tokens)
    rate = plan.flops_rate(device, half)
    seconds = plan.phase_seconds(recipe, size, batch, rate, companions)
    tables += [Text("\ntime", "bold"), _time(recipe, seconds, rate, device)]
    return Group(*tables), problems


def _device_memory(device: str) -> int:
    import torch

    return torch.cuda.get_device_properties(device).total_memory if device == "cuda" else 0


def _serving(serving: Serving) -> Table:
    grid = _grid()
    where = "with its own memory" if serving.own_memory else "on the trainer's device"
    grid.add_row("servers", f"{serving.servers}, each {where}")
    grid.add_row("weights", size_text(serving.weights))
    fit = serving.cache // serving.per_rollout
    grid.add_row(
        "KV cache",
        f"{size_text(serving.cache)} each: {fit:,} rollouts of full length, "
        f"{size_text(serving.per_rollout)} each",
    )
    grid.add_row(
        "at once",
        f"{serving.at_once:,} rollouts at most (engine.max_num_seqs, KV cache); the run has up "
        f"to {serving.in_flight:,} in flight",
    )
    grid.add_row(
        "sync",
        f"{size_text(serving.weights)} written once a step, read by {serving.servers} server(s)",
    )
    return grid


def _too_small(serving: Serving, longest: int) -> list[str]:
    """`longest`: tokens of the longest prompt seen and a full answer."""
    problems = []
    if serving.cache < serving.per_rollout:
        problems.append(
            f"engine: a rollout of full length needs {size_text(serving.per_rollout)} of KV cache, "
            f"vLLM has {size_text(serving.cache)}; raise engine.kv_cache_gib (CPU) or "
            "engine.gpu_memory_utilization (GPU)"
        )
    if serving.longest is not None and longest > serving.longest:
        problems.append(
            f"engine.max_model_len: {serving.longest} tokens are fewer than a prompt of the data "
            f"and a full answer, {longest}: answers would be cut; raise it"
        )
    return problems


def _device(recipe: Recipe) -> tuple[str, bool]:
    """(device, whether the policy computes in bfloat16 there)."""
    import torch

    from trainer.ops.devices import compute_dtype

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return device, compute_dtype(recipe.policy.dtype, device) == "bfloat16"


def _model(recipe: Recipe, size: Size, half: bool) -> Table:
    from trainer.plan import critic_size

    grid = _grid()
    grid.add_row("parameters", f"{count(size.parameters)}, {count(size.trainable)} trained")
    if recipe.policy.lora:
        grid.add_row(
            "LoRA", f"rank {recipe.policy.lora.rank}: {size.trainable / size.parameters:.2%}"
        )
    grid.add_row("shape", f"{size.layers} layers x {size.hidden}, vocabulary {size.vocabulary:,}")
    grid.add_row("computes in", "bfloat16" if half else "float32")
    if (critic := critic_size(recipe)) is not None:
        grid.add_row("critic", f"{count(critic.parameters)}, {count(critic.trainable)} trained")
    return grid


def _batch(recipe: Recipe, batch: Batch, lengths: list[int]) -> Table:
    grid, learner = _grid(), recipe.learner
    size = recipe.rollouts.group_size
    grid.add_row("rollouts", f"{batch.groups} prompts x {size} answers = {batch.rollouts}")
    per = batch.rollouts // learner.minibatches
    grid.add_row(
        "updates",
        f"{learner.epochs} epochs x {learner.minibatches} minibatches of {per} rollouts "
        f"= {batch.updates} a step, {batch.updates * recipe.steps:,} in {recipe.steps} steps",
    )
    grid.add_row(
        "processes",
        f"{batch.world}, each {batch.groups / batch.world:g} prompts ({_launch(batch)})",
    )
    longest = max(lengths, default=0)
    grid.add_row(
        "prompt", f"{batch.prompt_tokens:.0f} tokens on average, {longest} at most of {ROWS}"
    )
    grid.add_row("answer", f"up to {batch.answer_tokens} tokens")
    grid.add_row(
        "tokens",
        f"up to {batch.packed_tokens:,} a step ({recipe.policy.packing} packing), "
        f"{batch.micro_batches} micro-batches of {learner.token_budget:,} per process and update",
    )
    return grid


def _launch(batch: Batch) -> str:
    return "WORLD_SIZE" if batch.world > 1 else "torchrun --nproc_per_node N for more"


def _memory(memory: Memory, size: Size, batch: Batch, half: bool, *, alone: bool) -> Table:
    from trainer.plan import sync_bytes

    grid = _grid()
    grid.add_column(justify="right")
    rows = (
        ("weights", "float32"),
        ("gradients", "float32, trained parameters"),
        ("optimiser", "AdamW, two moments in float32"),
        ("reference", "frozen copy"),
        ("critic", "weights, gradients and optimiser, float32"),
        ("beside", "models of rewards: weights, gradients, moments, frozen copies"),
        ("engine", "copy for sampling"),
        ("cache", f"KV of {-(-batch.rollouts // batch.world)} rollouts of full length"),
        ("activations", "estimate at the token budget"),
    )
    for name, what in rows:
        if value := getattr(memory, name):
            grid.add_row(name, what, size_text(value))
    grid.add_row("[bold]sum", "", f"[bold]{size_text(memory.total)}")
    per = (2 if half else 4) * size.cache_per_token * (batch.prompt_tokens + batch.answer_tokens)
    grid.add_row("KV cache", "of one rollout", size_text(per))
    what = "of the adapter" if alone else "of weights"
    sent = sync_bytes(size, half, alone=alone)
    grid.add_row("sync", f"each publication {what}", size_text(sent))
    return grid


def _time(recipe: Recipe, seconds: dict[str, float], rate: float, device: str) -> Table:
    grid = _grid()
    for phase, value in seconds.items():
        if value:
            grid.add_row(f"[{PHASES[phase]}]{phase}", f"{value:.3g} s a step")
    total = sum(seconds.values())
    grid.add_row("all", f"{total:.3g} s a step, {duration(total * recipe.steps)} for all steps")
    grid.add_row(
        "[yellow]estimate",
        f"a lower bound: answers of full length at the matrix-product rate of this {device}, "
        f"{rate / 1e9:,.0f} GFLOP/s, measured now. Decoding and small models run below that rate",
    )
    return grid


def count(number: float) -> str:
    """`412.5 k`, `494.0 M`, `7.6 B`."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number:.0f}"


def size_text(number: float) -> str:
    """Bytes as `1.6 MiB`, `28.4 GiB`."""
    units: Iterator[str] = iter(("B", "KiB", "MiB", "GiB"))
    unit = next(units)
    while number >= 1024 and unit != "GiB":
        number, unit = number / 1024, next(units)
    return f"{number:,.1f} {unit}"
