"""Worker processes for reward code: each unit has a deadline, a worker that misses it is killed.

Plain subprocesses and a socket each, not `multiprocessing`: the child does not import the
parent's main module, and waiting for it is native to the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.types import ScoreStatus
from trainer.worker import Failed, Graded, Ready, Work, framed

LOAD_SECONDS = 120.0
"""Longest a worker may take to start and import a reward."""
BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); "
    "from trainer.worker import serve; serve(int(sys.argv[1]), int(sys.argv[2]))"
)


class Died(Exception):
    """The worker process is gone; the message says how it ended."""


class DiedIdle(Died):
    """It was gone before grading began, perhaps since its last request: try a fresh one."""


class Hung(Exception):
    """The worker did not answer in time."""


class Worker:
    """One process; `start` may be called again after `kill`."""

    def __init__(self, log: Path | None):
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self._announced: int | None = None  # size of a message of which only the header was read

    async def start(self) -> None:
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.enter_context(theirs)
            output = stack.enter_context(self.log.open("ab")) if self.log else 2
            command = [sys.executable, "-c", BOOT, str(theirs.fileno()), str(os.getpid())]
            self.process = subprocess.Popen(
                [*command, json.dumps(sys.path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is ours; and `killpg` reaches its children
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        self._announced = None
        self.reader, self.writer = await asyncio.open_connection(sock=ours)

    async def grade(self, work: Work, deadline: float, replies: list[Graded | Failed]) -> None:
        """Adds one reply per unit from `work.first` on, each within `deadline` seconds. Raises
        `Died`, `DiedIdle` or `Hung` with a text: the fault of the first unit without a reply. The
        worker is then of no use."""
        stage = "loading the reward"
        try:
            self.writer.write(framed(work))
            ready = await self._receive(LOAD_SECONDS)
            if not isinstance(ready, Ready):
                replies += [ready] * (len(work.seeds) - work.first)
                return
            stage = "grading"
            for _ in work.seeds[work.first :]:
                replies.append(await self._receive(deadline))
        except TimeoutError:
            limit = LOAD_SECONDS if stage != "grading" else deadline
            raise Hung(f"{stage} took more than {limit:g} s") from None
        except (EOFError, OSError, pickle.UnpicklingError):
            kind = Died if stage == "grading" else DiedIdle
            raise kind(f"{await self._ending()} while {stage}") from None

    async def _receive(self, seconds: float) -> Any:
        """The next message. A late look at the clock (a blocked event loop) does not count: what
        has arrived by then is taken."""
        try:
            async with asyncio.timeout(seconds):
                return await self._read()
        except TimeoutError:
            async with asyncio.timeout(0.05):
                return await self._read()

    async def _read(self) -> Any:
        """May be cancelled and called again."""
        if self._announced is None:
            self._announced = int.from_bytes(await self.reader.readexactly(8), "big")
        data = await self.reader.readexactly(self._announced)
        self._announced = None
        return pickle.loads(data)

    async def _ending(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self.process.wait, 1.0)
        code = self.process.poll()
        if code is None:
            return "the worker closed its connection"
        if code >= 0:
            return f"the worker exited with code {code}"
        return f"the worker was ended by {signal.Signals(-code).name}"

    def signal_kill(self) -> None:
        """Ends the process and what it started, at once."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.writer.close()

    async def kill(self) -> None:
        process = self.process
        self.signal_kill()
        self.process = None
        if process is not None:
            await asyncio.to_thread(process.wait)


class Pool:
    """`size` workers that any number of groups share; requests wait their turn for free."""

    def __init__(self, size: int, log: Path | None = None):
        """`log`: file for what reward code prints; None: the standard error stream."""
        self.workers = [Worker(log) for _ in range(size)]
        self.idle: asyncio.Queue[Worker] = asyncio.Queue()
        for worker in self.workers:
            self.idle.put_nowait(worker)

    async def start(self) -> None:
        """Starts every worker now; without it each starts with its first request."""
        for worker in self.workers:
            await worker.start()

    async def close(self) -> None:
        for worker in self.workers:
            worker.signal_kill()
        for worker in self.workers:
            await worker.kill()

    async def run(self, work: Work, deadline: float) -> list[Graded | Failed]:
        """One reply per unit, each within `deadline` seconds, from the next free workers: what
        comes after a unit that ends its worker goes to another one. A worker that is found dead
        is replaced, once."""
        replies: list[Graded | Failed] = []
        while len(replies) < len(work.seeds):
            failed = await self._turn(replace(work, first=len(replies)), deadline, replies)
            if failed is not None:
                replies.append(failed)
        return replies

    async def _turn(
        self, work: Work, deadline: float, replies: list[Graded | Failed]
    ) -> Failed | None:
        """Adds replies up to the end, or to the unit whose failure is returned."""
        worker = await self.idle.get()
        healthy = False
        try:
            try:
                await self._attempt(worker, work, deadline, replies)
            except DiedIdle:
                await worker.kill()
                await self._attempt(worker, work, deadline, replies)
            healthy = True
        except Hung as error:
            return Failed(ScoreStatus.TIMEOUT, str(error))
        except Died as error:
            return Failed(ScoreStatus.CRASHED, str(error))
        finally:
            try:
                if not healthy:
                    await worker.kill()
            finally:
                self.idle.put_nowait(worker)
        return None

    @staticmethod
    async def _attempt(
        worker: Worker, work: Work, deadline: float, replies: list[Graded | Failed]
    ) -> None:
        if worker.process is None:
            await worker.start()
        await worker.grade(work, deadline, replies)


@contextlib.asynccontextmanager
async def open_pool(size: int, log: Path | None = None, *, warm: bool) -> AsyncIterator[Pool]:
    """`warm`: start the workers now, beside whatever else the run prepares."""
    pool = Pool(size, log)
    try:
        if warm:
            await pool.start()
        yield pool
    finally:
        await pool.close()
