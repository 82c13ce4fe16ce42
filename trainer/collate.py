"""Scored groups (trees of spans) become one right-padded `Batch`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from trainer.rollouts.base import path_inputs
from trainer.types import Batch, Group, Rollout, Score, Status

_COLUMNS = {
    "tokens": torch.long,
    "mask": torch.bool,
    "turn": torch.long,
    "version": torch.long,
    "rewards": torch.float32,
    "weight": torch.float32,
    "sampled_logprobs": torch.float32,
}
_OPTIONAL = {"process": torch.float32, "step_end": torch.bool}
"""Columns of `Batch.extra`, left out where no row has any."""
_PADDING = {"turn": -1, "version": -1}


def collate(groups: Sequence[Group]) -> Batch:
    """One row per root-to-leaf path with a sampled token, of every rollout that has a value.

    A rollout whose score is None leaves the batch, hence the statistics of its group. If nothing
    is left, the first rollout stays with an empty mask, so that this process still takes part in
    collective work. Raises ValueError for an empty list.
    A group's `baseline` gives no row: its return is the part `greedy` of the group's rows.
    """
    rows = _Rows()
    number = 0
    for index, group in enumerate(groups):
        for rollout in group.rollouts:
            if rollout.score is not None and rollout.score.value is not None:
                rows.add(rollout, index, number, _baseline(group))
            number += 1
    if not rows.group:
        rows.add_idle(groups[0].rollouts[0])
    return rows.batch()


class _Rows:
    def __init__(self) -> None:
        # The rows one after the other: a tensor per row and column would take longer to make.
        self.columns: dict[str, list[Any]] = {name: [] for name in (*_COLUMNS, *_OPTIONAL)}
        self.length: list[int] = []
        self.group: list[int] = []
        self.rollout: list[int] = []
        self.inputs: list[dict[str, Any]] = []
        self.parts: list[dict[str, float | None]] = []
        self.outcome: list[float] = []
        self.truncated: list[bool] = []

    def add(
        self, rollout: Rollout, group: int, number: int, parts: dict[str, float | None]
    ) -> None:
        """`parts`: of the group, beside those of the score."""
        paths = [
            path
            for path in map(rollout.path, rollout.leaves())
            if any(any(rollout.spans[i].sampled) for i in path)
        ]
        shares = Counter(i for path in paths for i in path)
        for path in paths:
            self._append(rollout, path, shares, group, number, parts)

    def add_idle(self, rollout: Rollout) -> None:
        """A row without any action; the rollout may have ended before it sampled a token."""
        path = rollout.path(rollout.leaves()[0])
        self._append(replace(rollout, score=None), path, Counter(path), 0, 0, {})
        self.columns["mask"] = [False] * self.length[0]

    def _append(
        self,
        rollout: Rollout,
        path: list[int],
        shares: Counter[int],
        group: int,
        number: int,
        parts: dict[str, float | None],
    ) -> None:
        for name, values in _row(rollout, path, shares).items():
            self.columns[name] += values
        self.length.append(sum(len(rollout.spans[i].tokens) for i in path))
        self.group.append(group)
        self.rollout.append(number)
        self.inputs.append(path_inputs(rollout, path[-1]))
        score = rollout.score or Score()
        self.parts.append(score.parts | parts)
        self.outcome.append(score.value or 0.0)
        self.truncated.append(rollout.status is Status.TRUNCATED)

    def batch(self) -> Batch:
        padded = {name: self._padded(name, kind) for name, kind in _COLUMNS.items()}
        part_names = sorted({name for parts in self.parts for name in parts})
        return Batch(
            **padded,  # pyright: ignore[reportArgumentType]
            length=torch.tensor(self.length),
            group=torch.tensor(self.group),
            rollout=torch.tensor(self.rollout),
            inputs=tuple(self.inputs),
            outcome=torch.tensor(self.outcome),
            truncated=torch.tensor(self.truncated),
            extra={
                name: self._padded(name, kind)
                for name, kind in _OPTIONAL.items()
                if any(self.columns[name])
            },
            parts={
                name: torch.tensor([_or_nan(parts.get(name)) for parts in self.parts])
                for name in part_names
            },
        )

    def _padded(self, name: str, kind: torch.dtype) -> Tensor:
        """[B, T]"""
        rows = torch.tensor(self.columns[name], dtype=kind).split(self.length)
        return pad_sequence([*rows], batch_first=True, padding_value=_PADDING.get(name, 0))


def _row(rollout: Rollout, path: list[int], shares: Counter[int]) -> dict[str, list[Any]]:
    """[T] columns of one path. The outcome lands on the last sampled token."""
    score = rollout.score
    tokens: list[int] = []
    mask: list[bool] = []
    turns: list[int] = []
    version: list[int] = []
    logprobs: list[float] = []
    weight: list[float] = []
    rewards: list[float] = []
    step_end: list[bool] = []
    turn = -1
    for index in path:
        span = rollout.spans[index]
        turn += any(span.sampled)
        tokens += span.tokens
        mask += span.sampled
        version += span.version
        logprobs += span.logprobs
        turns += [turn if own else -1 for own in span.sampled]
        weight += [1 / shares[index]] * len(span.tokens)
        earned = list(score.tokens.get(index, ())) if score else []
        earned = earned or [0.0] * len(span.tokens)
        if score and index in score.spans and earned:
            earned[-1] += score.spans[index]
        rewards += earned
        ends = set(score.steps.get(index, ())) if score else ()
        step_end += [at in ends for at in range(len(span.tokens))]
    process = list(rewards)
    if score and score.value is not None:
        rewards[max(t for t, own in enumerate(mask) if own)] += score.value
    return {
        "tokens": tokens,
        "mask": mask,
        "turn": turns,
        "version": version,
        "rewards": rewards,
        "weight": weight,
        "sampled_logprobs": logprobs,
        "process": process,
        "step_end": step_end,
    }


def _baseline(group: Group) -> dict[str, float | None]:
    if group.baseline is None:
        return {}
    score = group.baseline.score
    return {"greedy": score.total if score else None}


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)
