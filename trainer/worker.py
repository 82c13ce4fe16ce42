"""A scoring worker: grades what comes over a socket, one request at a time.

Protocol (8-byte length, then pickle), for each request: the worker answers `Ready` once the
reward is loaded, so that imports do not eat the deadline, and then `Graded` or `Failed` for one
unit after the other: each rollout of a pointwise reward, else the whole group. A single `Failed`
in place of `Ready` is the answer for all units.
Started by `isolation.Pool` as a fresh interpreter. Nothing here imports torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from trainer.errors import MissingService
from trainer.ops.verdict import describe, judged, shorten
from trainer.rewards.base import Call, IsolatedReward
from trainer.types import Group, Score, ScoreStatus

FRAME_LIMIT = 32 * 2**20
"""Bytes of the largest reply."""
LOADED_LIMIT = 64
"""Rewards kept loaded; co-trained ones come anew each step."""


@dataclass(frozen=True, slots=True)
class Work:
    """`reward` and `group` stay pickled so that a failure to load them is caught as such."""

    reward: bytes
    group: bytes
    step: int
    total_steps: int
    seeds: tuple[int, ...]
    """One per unit, for `random`."""
    first: int = 0
    """Units before this one were answered in an earlier attempt."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The reward is loaded; grading starts now."""


@dataclass(frozen=True, slots=True)
class Graded:
    scores: list[Score]
    metrics: dict[str, float] = field(default_factory=dict)
    columns: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """The unit failed. `missing`: for want of a package or service, so every request of this kind
    would fail."""

    status: ScoreStatus
    reason: str
    missing: bool = False


def framed(message: Any) -> bytes:
    """A message as it goes over the socket."""
    data = pickle.dumps(message)
    return len(data).to_bytes(8, "big") + data


def receive(stream: BinaryIO) -> Any:
    """The next message; None once the other side is gone."""
    header = stream.read(8)
    if len(header) < 8:
        return None
    return pickle.loads(stream.read(int.from_bytes(header, "big")))


def serve(fd: int, parent: int) -> None:
    """Answers requests until the parent closes the socket or dies; does not return."""
    _die_with(parent)
    os.set_inheritable(fd, False)
    parent_side = socket.socket(fileno=fd)
    stream: Any = parent_side.makefile("rb")
    loaded: dict[bytes, IsolatedReward] = {}
    while (work := receive(stream)) is not None:
        for reply in _replies(work, loaded):
            parent_side.sendall(reply)
    os._exit(0)  # threads that user code left behind must not keep the process alive


def _replies(work: Work, loaded: dict[bytes, IsolatedReward]) -> Iterator[bytes]:
    reward = _load(work.reward, loaded)
    units = reward if isinstance(reward, Failed) else _units(reward, work.group)
    if isinstance(reward, Failed) or isinstance(units, Failed):
        yield framed(units)
        return
    yield framed(Ready())
    for unit, seed in list(zip(units, work.seeds, strict=True))[work.first :]:
        reply = _grade(reward, unit, Call(work.step, work.total_steps), seed)
        signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm left behind would hit the next sample
        yield _sendable(reply)


def _sendable(reply: Graded | Failed) -> bytes:
    try:
        data = framed(reply)
    except Exception as error:  # the reward border: columns may hold anything
        return framed(Failed(ScoreStatus.RAISED, f"cannot be sent back: {describe(error)}"))
    if len(data) > FRAME_LIMIT:
        reason = f"returned {len(data)} bytes, more than {FRAME_LIMIT}"
        return framed(Failed(ScoreStatus.RAISED, reason))
    return data


def _load(blob: bytes, loaded: dict[bytes, IsolatedReward]) -> IsolatedReward | Failed:
    if blob not in loaded:
        try:
            reward = pickle.loads(blob)
            reward.warm()
        except MissingService as error:
            return Failed(ScoreStatus.RAISED, str(error), missing=True)
        except BaseException as error:  # the reward border: imports run user code
            reason = f"cannot load the reward in a worker: {describe(error)}"
            return Failed(ScoreStatus.RAISED, reason)
        if len(loaded) >= LOADED_LIMIT:
            loaded.clear()
        loaded[blob] = reward
    return loaded[blob]


def _units(reward: IsolatedReward, blob: bytes) -> list[Group] | Failed:
    try:
        group: Group = pickle.loads(blob)
    except BaseException as error:  # the reward border: a data row may hold objects of any class
        return Failed(ScoreStatus.RAISED, describe(error))
    if not reward.pointwise:
        return [group]
    return [Group(group.prompt, [rollout]) for rollout in group.rollouts]


def _grade(reward: IsolatedReward, group: Group, call: Call, seed: int) -> Graded | Failed:
    random.seed(seed)
    try:
        scores = judged(reward.grade_group(group, call), group.rollouts, artifacts=True)
        columns = {
            str(name): [_loggable(value) for value in values]
            for name, values in call.columns.items()
        }
        metrics = {str(name): float(value) for name, value in call.metrics.items()}
    except MissingService as error:
        return Failed(ScoreStatus.RAISED, str(error), missing=True)
    except (SystemExit, KeyboardInterrupt, asyncio.CancelledError) as error:
        return Failed(ScoreStatus.CRASHED, describe(error))
    except BaseException as error:  # the reward border: whatever user code raises is data
        return Failed(ScoreStatus.RAISED, describe(error))
    return Graded(scores, metrics, columns)


def _loggable(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return shorten(value if isinstance(value, str) else repr(value), 1000)


def _die_with(parent: int) -> None:
    """The worker never outlives its parent, however that ends."""
    if sys.platform == "linux":
        import ctypes

        # by the kernel: also while a regular expression holds the interpreter's lock
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        # if memory runs out, a worker goes first, not the run
        with contextlib.suppress(OSError):  # a read-only /proc
            Path("/proc/self/oom_score_adj").write_text("1000")
    if os.getppid() != parent:
        os._exit(0)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
