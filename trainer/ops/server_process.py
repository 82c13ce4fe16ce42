"""A server as a child process, with a log file, that cannot outlive us."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_LAST_LINES = 40
_TRACEBACK = "Traceback (most recent call last)"
_POLITE_SECONDS = 10.0


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


class ServerProcess:
    """Started in a process group of its own; all of the group ends with it."""

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        log: Path,
        *,
        remove: Sequence[Path] = (),
    ):
        """`remove`: folders nobody needs if we die."""
        self.command, self.environment, self.log = command, environment, log
        self._remove = os.pathsep.join(map(str, remove))
        self._process: asyncio.subprocess.Process | None = None
        self._from = 0

    async def start(self) -> None:
        """Appends to `log`. The process may be started again after it ended."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self._from = out.tell()
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "trainer.ops.guard", self._remove, *self.command),
                stdin=asyncio.subprocess.PIPE,
                stdout=out,
                stderr=asyncio.subprocess.STDOUT,
                env=os.environ | self.environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the process group."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def used_seconds(self) -> float:
        """CPU time of its processes so far; infinite while one of them waits for a disk, so that
        no difference to it is small."""
        import psutil

        total = 0.0
        with suppress(psutil.NoSuchProcess):
            guard = psutil.Process(self.pid)
            for process in (guard, *guard.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    waits = process.status() == psutil.STATUS_DISK_SLEEP
                    total += math.inf if waits else times.user + times.system
        return total

    async def wait(self) -> None:
        """Returns when it ended."""
        if self._process is not None:
            await self._process.wait()

    async def kill(self) -> None:
        """Ends the whole group at once."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    async def stop(self) -> None:
        """Asks politely, then as `kill`."""
        if self.running:
            assert self._process is not None
            with suppress(ProcessLookupError):
                self._process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _POLITE_SECONDS)
        await self.kill()

    def last_words(self) -> str:
        """The last traceback of this start, or the last lines of its log."""
        with self.log.open("rb") as log:
            log.seek(self._from)
            lines = log.read().decode("utf-8", errors="replace").splitlines()
        return "\n".join(first_traceback(lines) or lines[-_LAST_LINES:])


def first_traceback(lines: list[str]) -> list[str]:
    """The cause; those after it are of processes that lost a neighbour. Its middle is left out if
    it is long. [] if there is none. Lines may carry a prefix such as `(Worker) ERROR 12:00 [a.py]`.
    """
    start = next((i for i, line in enumerate(lines) if _TRACEBACK in line), None)
    if start is None:
        return []
    margin = lines[start].index(_TRACEBACK)
    found = [lines[start][margin:]]
    for line in lines[start + 1 :]:
        text = line[margin:]
        found.append(text)
        if text and not text[0].isspace():
            break
    half = _LAST_LINES // 2
    return found if len(found) <= _LAST_LINES else [*found[:half], "  ...", *found[-half:]]
