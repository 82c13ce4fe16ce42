"""A scoring worker: grades what comes over a socket, one request at a time.

Protocol (8-byte length, then pickle), for each request: the worker answers `Ready` once the
reward is loaded, so that imports do not eat the deadline, and then `Graded`; or a `Failed`.
Started by `isolation.Pool` as a fresh interpreter. Nothing here imports torch.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import signal
import socket
import sys
import threading
import time
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
    seed: int
    """Seeds `random` before grading."""


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
    """The whole request failed. `missing`: for want of a package or service, so every request of
    this kind would fail."""

    status: ScoreStatus
    reason: str
    missing: bool = False


def send(stream: BinaryIO, message: Any) -> None:
    data = pickle.dumps(message)
    stream.write(len(data).to_bytes(8, "big") + data)
    stream.flush()


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
    stream = socket.socket(fileno=fd).makefile("rwb")
    loaded: dict[bytes, IsolatedReward] = {}
    while (work := receive(stream)) is not None:
        reward = _load(work.reward, loaded)
        if isinstance(reward, Failed):
            send(stream, reward)
            continue
        send(stream, Ready())
        reply = _grade(reward, work)
        signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm left behind would hit the next sample
        try:
            size = len(pickle.dumps(reply))
        except Exception as error:  # the reward border: columns may hold anything
            reply = Failed(ScoreStatus.RAISED, f"cannot be sent back: {describe(error)}")
        else:
            if size > FRAME_LIMIT:
                reason = f"returned {size} bytes, more than {FRAME_LIMIT}"
                reply = Failed(ScoreStatus.RAISED, reason)
        send(stream, reply)
    os._exit(0)  # threads that user code left behind must not keep the process alive


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


def _grade(reward: IsolatedReward, work: Work) -> Graded | Failed:
    random.seed(work.seed)
    call = Call(work.step, work.total_steps)
    try:
        group: Group = pickle.loads(work.group)
        scores = judged(reward.grade_group(group, call), group.rollouts)
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
        Path("/proc/self/oom_score_adj").write_text("1000")
    if os.getppid() != parent:
        os._exit(0)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
