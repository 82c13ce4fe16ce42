"""Plain functions with TRL's signature, unchanged."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from pydantic import Field, field_validator, model_validator

from trainer.ops.text import text_of
from trainer.ops.verdict import judged
from trainer.plugin import load_object
from trainer.rewards.base import Call, IsolatedReward, Verdict
from trainer.types import Group, Prompt, Rollout, Score, ScoreStatus

GIVEN = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
"""Arguments that are not data columns."""


class Function(IsolatedReward):
    """`f(prompts, completions, completion_ids, **columns) -> list[float | None]`, sync or async.

    Every argument is a list over the group's rollouts. A column is a column of the data row,
    repeated; `answer`, `task`, `images` and `image` are the prompt's where it has them. A function
    is given only what its signature names, or all if it takes `**kwargs`; so are `trainer_state`
    (with `global_step`, `max_steps`), `log_extra(column, values)` and `log_metric(name, value)`.
    It runs in a worker process, once for the whole group.
    None means "does not apply". Several functions are summed by `weights`, None left out, each a
    part under its own name; a fault of one is a fault of the sum.
    """

    function: tuple[str, ...] = Field(min_length=1)
    """`my_pkg.mod:fn`, or a list of them."""
    weights: tuple[float, ...] | None = None
    """One per function; None: all 1."""
    conversational: bool = True
    """Prompts are lists of messages and completions `[{"role": "assistant", "content": text}]`;
    off: both are plain text."""

    @field_validator("function", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("function")
    @classmethod
    def _callable(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if ":" not in name:
                raise ValueError(f"{name!r} is not of the form my_pkg.mod:fn")
            if not callable(load_object(name)):
                raise ValueError(f"{name!r} is not a function")
        return names

    @model_validator(mode="after")
    def _weighted(self) -> Function:
        if self.weights is not None and len(self.weights) != len(self.function):
            have, want = len(self.weights), len(self.function)
            raise ValueError(f"weights: {have} of them for {want} functions")
        return self

    @property
    def needs(self) -> frozenset[str]:
        found = set()
        for name in self.function:
            for parameter in inspect.signature(load_object(name)).parameters.values():
                if parameter.name in ("image", "images"):
                    found.add("images")
                elif parameter.name in ("answer", "task"):
                    found |= {parameter.name} if parameter.default is parameter.empty else set()
                elif _is_required(parameter):
                    found.add(f"meta.{parameter.name}")
        return frozenset(found)

    def warm(self) -> None:
        for name in self.function:
            load_object(name)

    def grade_group(self, group: Group, call: Call) -> list[Verdict]:
        columns = [
            judged(self._run(load_object(name), name, group, call), group.rollouts)
            for name in self.function
        ]
        if len(columns) == 1:
            return [*columns[0]]
        return [self._sum(row) for row in zip(*columns, strict=True)]

    def _run(self, function: Callable[..., Any], name: str, group: Group, call: Call) -> Any:
        offered = self._arguments(group, call)
        parameters = inspect.signature(function).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            missing = [p.name for p in parameters if _is_required(p) and p.name not in offered]
            if missing:
                have = ", ".join(sorted(set(offered) - set(GIVEN)))
                raise TypeError(f"{name} needs the column {missing[0]!r}; the row has {have}")
            taken = {p.name for p in parameters}
            offered = {key: value for key, value in offered.items() if key in taken}
        result = function(**offered)
        return asyncio.run(_finish(result)) if inspect.isawaitable(result) else result

    def _arguments(self, group: Group, call: Call) -> dict[str, Any]:
        prompt, rollouts = group.prompt, group.rollouts
        own = {"answer": prompt.answer, "task": prompt.task}
        columns = (
            own | prompt.meta | {name: value for name, value in own.items() if value is not None}
        )
        if pictures := _pictures(prompt):
            columns |= {"images": pictures, "image": pictures[0]}
        reserved = ("prompt", "completion", *GIVEN)
        repeated = {k: [v] * len(rollouts) for k, v in columns.items() if k not in reserved}
        messages = [dict(message) for message in prompt.messages]
        text = "\n".join(text_of(message.get("content")) for message in messages)
        plain = not self.conversational

        def log_extra(column: str, values: list[Any]) -> None:
            call.columns[column] = values

        def log_metric(name: str, value: float) -> None:
            call.metrics[name] = value

        return repeated | {
            "prompts": [text if plain else messages for _ in rollouts],
            "completions": [r.reply if plain else _turns(r) for r in rollouts],
            "completion_ids": [r.completion for r in rollouts],
            "trainer_state": SimpleNamespace(global_step=call.step, max_steps=call.total_steps),
            "log_extra": log_extra,
            "log_metric": log_metric,
        }

    def _sum(self, scores: tuple[Score, ...]) -> Score:
        names = [name.rpartition(":")[2] for name in self.function]
        if len(set(names)) < len(names):
            names = list(self.function)
        parts = {name: score.value for name, score in zip(names, scores, strict=True)}
        for name, score in zip(names, scores, strict=True):
            if score.status.is_fault:
                reason = f"{name}: {score.reason}"
                return Score(parts=parts, status=score.status, reason=reason)
        weights = self.weights or (1.0,) * len(scores)
        values = [w * s.value for w, s in zip(weights, scores, strict=True) if s.value is not None]
        if not values:
            return Score(parts=parts, status=ScoreStatus.NOT_APPLICABLE)
        return Score(sum(values), parts=parts)


def _pictures(prompt: Prompt) -> list[Any]:
    parts = [
        part for m in prompt.messages if isinstance(m["content"], list) for part in m["content"]
    ]
    return [part["image"] for part in parts if part.get("image") is not None]


def _is_required(parameter: inspect.Parameter) -> bool:
    variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    return not variadic and parameter.default is parameter.empty and parameter.name not in GIVEN


def _turns(rollout: Rollout) -> list[dict[str, str]]:
    """The conversation after the prompt, along the path to the last span."""
    path = rollout.path(len(rollout.spans) - 1 if rollout.spans else None)
    turns = [rollout.spans[i] for i in path if rollout.spans[i].author != "data"]
    return [{"role": span.role, "content": span.message} for span in turns]


async def _finish(awaitable: Any) -> Any:
    return await awaitable
