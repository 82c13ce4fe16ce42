"""How a run of `trainer.ops.jail` is started: as a fresh interpreter, or forked by a server that
has done beforehand what every run begins with."""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import MissingService
from trainer.ops.shown import packages_path

JAIL, SERVER = (Path(__file__).with_name(name) for name in ("jail.py", "jail_server.py"))
PREPARE_SECONDS = 120.0

Inside = Sequence[int]
"""Descriptors of a run: job, control, result, standard output, standard error."""


def python() -> list[str]:
    """The command of an interpreter that imports nothing by itself."""
    program = getattr(sys, "_base_executable", sys.executable)  # that of a venv is not shown
    return [program, "-I", "-S", "-B"]


def environment() -> dict[str, str]:
    names = ("LD_LIBRARY_PATH", "SYSTEMROOT")
    own = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    return own | threads | {name: os.environ[name] for name in names if name in os.environ}


@contextlib.contextmanager
def fresh(command: Sequence[str], inside: Inside) -> Iterator[None]:
    """A new process for one run; it and its group are gone afterwards."""
    *passed, out, err = inside
    with subprocess.Popen(
        [*command, *map(str, passed)],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        pass_fds=passed,
        env=environment(),
        start_new_session=True,
    ) as process:
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class First:
    """Trusted code that the server runs once, before it hears of any run: a script, and then its
    `prepare(given)` if it has one. The working folder is an empty one that is gone afterwards.
    Neither threads nor shared memory may be left: a fork loses the ones and keeps the other."""

    source: str = ""
    given: Any = None
    """Plain data."""
    packages: bool = False
    """It may import installed packages."""


NOTHING = First()


class ForkServer:
    """Starts with its first run, and again where it is found dead; ends with this object.

    One run at a time. See `jail_server` for why runs cannot touch it, or each other through it.
    """

    def __init__(self, first: First = NOTHING):
        self.first = first
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket
        self._end: weakref.finalize
        self._turn = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return ForkServer, (self.first,)

    @property
    def pid(self) -> int | None:
        return self._process and self._process.pid

    def died(self) -> bool:
        """Also a moment from now."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process is None or self._process.wait(1.0) is not None
        return False

    @contextlib.contextmanager
    def forked(self, inside: Inside) -> Iterator[None]:
        """A launcher for one run; it and its group are gone once the server has seen the end.
        Raises `MissingService` where the server cannot begin."""
        with self._turn:
            if self._process is None:
                self._start()
            try:
                socket.send_fds(self._channel, [b"r"], inside)
            except OSError:  # it was killed, for want of memory perhaps
                self._start()
                socket.send_fds(self._channel, [b"r"], inside)
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    self._channel.send(b"e")

    def _start(self) -> None:
        if self._process is not None:
            self._end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with tempfile.TemporaryDirectory(prefix="cohort-sandbox-") as folder, theirs:
            self._process = subprocess.Popen(
                [*python(), str(SERVER), str(JAIL), str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment(),
                start_new_session=True,
            )
            self._channel = ours
            self._end = weakref.finalize(self, _end, self._process, ours)
            theirs.close()
            first = {"source": self.first.source, "given": self.first.given, "folder": folder}
            first["path"] = packages_path() if self.first.packages else []
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError), self._process.stdin as stream:
                stream.write(marshal.dumps(first))
            ours.settimeout(PREPARE_SECONDS)
            try:
                said = ours.recv(4096).decode()
            except TimeoutError:
                said = f"nothing for {PREPARE_SECONDS:g} s"
        if said != "ready":
            self._end()
            self._process = None
            raise MissingService(f"the sandbox's server did not begin: {said or 'it ended'}")


def _end(process: subprocess.Popen[bytes], channel: socket.socket) -> None:
    """What it started ends with it."""
    channel.close()
    process.kill()
    process.wait()
