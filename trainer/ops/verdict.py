"""What reward code returned becomes a `Score` to be trusted: finite, plain, of fitting size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from trainer.types import Rollout, Score, ScoreStatus

REASON_LENGTH = 300
"""Characters of a reason that are kept."""


def shorten(text: str, limit: int = REASON_LENGTH) -> str:
    """One line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def describe(error: BaseException) -> str:
    """`ValueError: bad answer`, also where the exception's own text cannot be made."""
    try:
        text = str(error)
    except Exception:  # the reward border: `__str__` is user code
        text = "(its message cannot be shown)"
    return shorten(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def failed(rollouts: Sequence[Rollout], status: ScoreStatus, reason: str) -> list[Score]:
    """The same fault for each."""
    return [Score.fault(status, reason) for _ in rollouts]


def judged(returned: Any, rollouts: Sequence[Rollout], *, artifacts: bool = False) -> list[Score]:
    """One checked score per rollout from whatever a reward returned; never raises.

    Not a list: every rollout is `RAISED`. Wrong length: every rollout is `WRONG_LENGTH`.
    `artifacts`: keeps those of the scores, which end with the reward that made them.
    """
    to_list: Any = getattr(returned, "tolist", None)  # numpy and torch arrays
    if to_list is None and not isinstance(returned, list | tuple):
        kind = type(returned).__name__
        reason = f"returned {kind}, expected a list with one item per rollout"
        return failed(rollouts, ScoreStatus.RAISED, reason)
    try:
        items: list[Any] = list(returned) if to_list is None else to_list()
        size = len(items)
    except Exception as error:  # the reward border: containers may be user code
        return failed(rollouts, ScoreStatus.RAISED, describe(error))
    if size != len(rollouts):
        reason = f"returned {size} scores for {len(rollouts)} rollouts"
        return failed(rollouts, ScoreStatus.WRONG_LENGTH, reason)
    return [_judge(item, rollout, artifacts) for item, rollout in zip(items, rollouts, strict=True)]


def _judge(item: Any, rollout: Rollout, artifacts: bool) -> Score:
    try:
        score = _check(_plain(item), rollout)
        if artifacts and isinstance(item, Score) and not score.status.is_fault:
            score.artifacts = {str(name): _bytes(v, name) for name, v in item.artifacts.items()}
        return score
    except Exception as error:  # the reward border: `__float__` and the like are user code
        return Score.fault(ScoreStatus.RAISED, describe(error))


def _plain(item: Any) -> Score:
    """A `Score` of plain numbers. None means "does not apply"; raises TypeError for the rest."""
    if not isinstance(item, Score):
        item = Score(value=item)
    spans = {int(i): _number(v, f"spans[{i}]") for i, v in item.spans.items()}
    tokens = {
        int(i): [_number(v, f"tokens[{i}]") for v in values] for i, values in item.tokens.items()
    }
    parts = {
        str(name): None if v is None else _number(v, f"parts[{name!r}]")
        for name, v in item.parts.items()
    }
    steps = {int(i): [int(end) for end in ends] for i, ends in item.steps.items()}
    status, reason = ScoreStatus(item.status), shorten(str(item.reason))
    value = None if item.value is None else _number(item.value, "the score")
    if status.is_fault:
        value, spans, tokens, steps = None, {}, {}, {}
    elif value is None and (spans or tokens):
        value = 0.0  # turn or token rewards alone: the outcome adds nothing
    elif value is None:
        status = ScoreStatus.NOT_APPLICABLE
    return Score(value, spans, tokens, parts, status, reason, steps)


def _bytes(value: Any, name: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    raise TypeError(f"artifacts[{name!r}] is {type(value).__name__}, expected bytes")


def _number(value: Any, where: str) -> float:
    if hasattr(value, "item"):  # numpy and torch scalars
        value = value.item()
    if isinstance(value, int | float):
        return float(value)
    shown = shorten(repr(value), 60)
    raise TypeError(f"{where} is {type(value).__name__} {shown}, expected a number or None")


def _check(score: Score, rollout: Rollout) -> Score:
    for where, value in [
        ("the score", score.value),
        *((f"spans[{i}]", v) for i, v in score.spans.items()),
        *((f"tokens[{i}]", v) for i, values in score.tokens.items() for v in values),
        *((f"parts[{name!r}]", v) for name, v in score.parts.items()),
    ]:
        if value is not None and not math.isfinite(value):
            return Score.fault(ScoreStatus.NOT_FINITE, f"{where} is {value}")
    count = len(rollout.spans)
    for i in [*score.spans, *score.tokens]:
        if not 0 <= i < count:
            reason = f"scored span {i} of a rollout with {count} spans"
            return Score.fault(ScoreStatus.WRONG_LENGTH, reason)
    for i, values in score.tokens.items():
        if len(values) != len(rollout.spans[i].tokens):
            size = len(rollout.spans[i].tokens)
            reason = f"{len(values)} token rewards for the {size} tokens of span {i}"
            return Score.fault(ScoreStatus.WRONG_LENGTH, reason)
    for i, ends in score.steps.items():
        size = len(score.tokens.get(i, ()))
        if ends != sorted(set(ends)) or any(not 0 <= end < size for end in ends):
            reason = f"step ends {ends} of span {i} must rise within its {size} token rewards"
            return Score.fault(ScoreStatus.WRONG_LENGTH, shorten(reason))
    return score
