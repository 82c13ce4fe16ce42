"""Runs code that nobody has read: one fresh, walled-in, limited process per run.

    box = Sandbox(seconds=2)
    box.prove()                                   # raises MissingService where walls are missing
    box.run("print(int(input()) + 1)", stdin="4").stdout     # b"5\n"

What the code may do: compute, read the Python installation, write to a /tmp of its own that is
gone afterwards. It has no network, no other files, no environment variables, no other processes
in sight and no rights. What comes back are bytes it chose to write; whoever judges them does so
outside, with right answers that were never handed in.
"""

from __future__ import annotations

import io
import json
import marshal
import os
import platform
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trainer.errors import MissingService
from trainer.ops.fork_server import (
    JAIL,
    NOTHING,
    First,
    ForkServer,
    environment,
    fresh,
    python,
)
from trainer.ops.shown import DATA, packages_path, shown

START_SECONDS = 30.0
"""For the walls to stand; none of the code's own time."""
KINDS = ("namespaces", "bubblewrap")
REMEDY = (
    "Allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
    "kernel.apparmor_restrict_unprivileged_userns=0; Docker: --security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined --cap-add SYS_ADMIN), or install bubblewrap"
)

PROBE = """
import ctypes, json, os, signal, socket
held = []
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 9))
    held.append("the network is in reach")
except OSError:
    pass
for path in REQUEST["secret"]:
    if os.path.lexists(path):
        held.append(f"{path} can be seen")
for path in ("/", "/usr", "/dev", "/dev/shm", REQUEST["prefix"]):
    try:
        os.close(os.open(path + "/.sandbox_probe", os.O_CREAT | os.O_WRONLY))
        held.append(f"{path} can be written to")
    except OSError:
        pass
space = os.statvfs("/tmp")
if space.f_blocks * space.f_frsize > REQUEST["files"]:
    held.append("/tmp is not limited")
for pid in (1, REQUEST["parent"]):
    try:
        os.kill(pid, 0)
        pid == 1 or held.append("a process outside can be signalled")
    except OSError:
        pass
if os.getuid() == 0:
    held.append("it is root")
if ctypes.CDLL(None).unshare(0x10000000) == 0:
    held.append("it can make namespaces")
if set(os.environ) & set(REQUEST["variables"]):
    held.append("environment variables can be seen")
children = []
try:
    for _ in range(REQUEST["processes"] + 4):
        children.append(os.fork())
        if not children[-1]:
            signal.pause()
    held.append("processes are not limited")
except OSError:
    pass
for child in children:
    os.kill(child, 9)
with open("own", "w") as file:
    file.write("x")
os.write(3, json.dumps(held).encode())
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, and what it wrote."""

    status: Literal["ended", "signal", "timeout", "overflow"]
    code: int
    """Exit code, or number of the signal; 0 where there is none."""
    stdout: bytes
    stderr: bytes
    result: bytes
    """What it wrote to descriptor 3."""
    seconds: float

    @property
    def fine(self) -> bool:
        return self.status == "ended" and self.code == 0

    @property
    def reason(self) -> str:
        """How it ended, for a person; empty if it is fine."""
        if self.fine:
            return ""
        said = self.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
        how = {
            "ended": f"exit code {self.code}",
            "signal": f"ended by signal {self.code}",
            "timeout": "took too long",
            "overflow": "wrote too much",
        }[self.status]
        return f"{how}: {said}" if said else how


class Sandbox(BaseModel):
    """Walls and limits around untrusted code.

    `auto`: Linux namespaces made by ourselves (as root or, where the system lets users make them,
    as anyone), else bubblewrap; refuses where neither holds, and outside Linux. Memory is limited
    per process, so that all of it together is at most `processes` times `memory_mb`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    isolation: Literal["auto", "namespaces", "bubblewrap", "none"] = "auto"
    """none: a plain process with time and memory limits only. It can read, write and send all
    that you can: for code you trust."""
    seconds: float = Field(4.0, gt=0, le=600)
    """Wall-clock time of one run; the same again, and two more, of processor time per process."""
    memory_mb: int = Field(1024, ge=64)
    """Address space of each process."""
    processes: int = Field(4, ge=1)
    """Processes and threads at once."""
    files_mb: int = Field(16, ge=1)
    """All of /tmp, and the largest file."""
    output_kb: int = Field(256, ge=1)
    """Of standard output, standard error and result, each; more ends the run."""

    def open(self, first: First = NOTHING) -> Cell:
        """A cell whose walls were tried from inside. `first` is done once, ahead of all runs, where
        the walls are namespaces. Raises `MissingService` that names what is missing."""
        if self.isolation == "none":
            return Cell(self, "none")
        if sys.platform != "linux":
            raise MissingService(
                f"sandbox: {platform.system()} has no isolation that we can use; run on Linux, or "
                "set `isolation: none` for code you trust"
            )
        faults = {}
        for kind in KINDS if self.isolation == "auto" else (self.isolation,):
            cell = Cell.of(self, kind, first)
            try:
                cell.prove()
                return cell
            except MissingService as error:
                faults[kind] = str(error)
        told = "; ".join(f"{kind}: {fault}" for kind, fault in faults.items())
        raise MissingService(
            f"sandbox: no isolation for untrusted code on this machine ({told}). {REMEDY}, or set "
            "`isolation: none` for code you trust"
        )

    def fault(self, kind: str) -> str:
        """Why a kind of isolation does not hold here; empty if it does."""
        try:
            Cell.of(self, kind).prove()
        except MissingService as error:
            return str(error)
        return ""


@dataclass(frozen=True, slots=True)
class Cell:
    """Where code runs; every run gets fresh processes and an empty /tmp."""

    limits: Sandbox
    kind: str
    server: ForkServer | None = None
    """None: each run starts an interpreter of its own."""

    @classmethod
    def of(cls, limits: Sandbox, kind: str, first: First = NOTHING) -> Cell:
        return cls(limits, kind, ForkServer(first) if kind == "namespaces" else None)

    def run(
        self,
        source: str,
        *,
        stdin: str = "",
        request: Any = None,
        packages: bool = False,
        shows: tuple[Path, ...] = (),
        seconds: float | None = None,
    ) -> Outcome:
        """Runs Python `source` as `__main__` with `REQUEST` (JSON data) among its globals.

        packages: installed packages can be imported. shows: files it may read, as
        `/data/<name>`. seconds: at most those of the limits. Raises `MissingService` where the
        walls cannot be built; whatever the code does is an `Outcome`.
        """
        allowed = self.limits.seconds if seconds is None else min(seconds, self.limits.seconds)
        folder = Path(tempfile.mkdtemp(prefix="cohort-sandbox-"))
        try:
            job = {
                **self.limits.model_dump(include={"memory_mb", "processes", "files_mb"}),
                "isolation": self.kind,
                "seconds": allowed,
                "source": source,
                "stdin": stdin,
                "request": request,
                "folder": str(folder),
                "shows": shown(packages, shows),
                "path": packages_path() if packages else [],
            }
            try:
                return _Run(self, job).outcome()
            except NotStarted:  # so no code has run yet
                if self.server is None or not self.server.died():
                    raise
                return _Run(self, job).outcome()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def inside(self, file: Path) -> str:
        """The path under which code sees a shown file."""
        return os.path.realpath(file) if self.kind == "none" else f"{DATA}/{file.name}"

    def started(self, job: dict[str, Any], inside: Sequence[int]) -> AbstractContextManager[None]:
        """Something that reads the job and runs it, from entering to leaving."""
        if self.server is not None:
            return self.server.forked(inside)
        return fresh(_outer(self.kind, job), inside)

    def prove(self) -> None:
        """Raises `MissingService` where a wall does not hold."""
        with tempfile.NamedTemporaryFile(prefix="cohort-canary-") as canary:
            asked = {
                "secret": [canary.name, "/proc/self", "/etc/passwd"],
                "prefix": sys.base_prefix,
                "parent": os.getpid(),
                "processes": self.limits.processes,
                "files": self.limits.files_mb * 2**20,
                "variables": [*set(os.environ) - {*environment(), "PWD"}],
            }
            # the time is that of a busy machine's start, not of the code to come
            patient = replace(self, limits=self.limits.model_copy(update={"seconds": 30.0}))
            done = patient.run(PROBE, request=asked)
        try:
            held = json.loads(done.result)
        except ValueError:
            raise MissingService(f"the probe did not run ({done.reason})") from None
        if held:
            raise MissingService(", ".join(held))


class NotStarted(MissingService):
    """The walls never stood; of a server, perhaps because it was killed for want of memory."""


class _Run:
    """One run, from outside: what the code writes, up to a limit, and the warden's word on how it
    ended."""

    def __init__(self, cell: Cell, job: dict[str, Any]):
        self.cell, self.job = cell, job
        self.most = cell.limits.output_kb * 1024
        self.kept: dict[int, bytearray] = {}
        self.words = bytearray()
        self.overflow = False

    def outcome(self) -> Outcome:
        """Raises `MissingService` where the walls cannot be built."""
        with ExitStack() as opened:
            pipes = [os.pipe() for _ in range(5)]
            reads = [opened.enter_context(open(fd, "rb", buffering=0)) for fd, _ in pipes]
            writes = [opened.enter_context(open(fd, "wb", buffering=0)) for _, fd in pipes]
            (job_in, *written), (job_out, *read) = writes, reads
            control, result, out, err = (file.fileno() for file in read)
            self.kept = {fd: bytearray() for fd in (out, err, result)}
            inside = (job_out, *written)
            started = time.monotonic()
            with self.cell.started(self.job, [file.fileno() for file in inside]):
                for file in inside:
                    file.close()
                with suppress(BrokenPipeError), io.BufferedWriter(job_in) as stream:
                    stream.write(marshal.dumps(self.job))
                self._listen(control)
            seconds = time.monotonic() - started
        said, warned, wrote = map(bytes, self.kept.values())
        status, code = self._ending(warned)
        return Outcome(status, code, said, warned, wrote, seconds)

    def _listen(self, control: int) -> None:
        """Until the end is announced and all is read, or a limit is passed."""
        waited = select.poll()
        for fd in (control, *self.kept):
            os.set_blocking(fd, False)
            waited.register(fd, select.POLLIN)
        open_, ready = {control, *self.kept}, False
        deadline = time.monotonic() + START_SECONDS
        while open_ and not self.overflow and (left := deadline - time.monotonic()) > 0:
            for fd, _ in waited.poll(left * 1000):
                data = os.read(fd, 65536)
                if data == b"":
                    waited.unregister(fd)
                    open_.discard(fd)
                    if fd == control:  # the warden is dead
                        deadline = min(deadline, time.monotonic() + 1.0)
                elif fd == control:
                    self.words += data
                else:
                    self.kept[fd] += data
                    self.overflow |= len(self.kept[fd]) > self.most
            if not ready and b"ready" in self.words:
                ready = True
                deadline = time.monotonic() + self.job["seconds"] + START_SECONDS
            if control in open_ and ready and self.words.count(b"\n") > 1:
                waited.unregister(control)
                open_.discard(control)
                # what it left behind without walls may hold the pipes open
                deadline = min(
                    deadline, time.monotonic() + (1.0 if self.cell.kind == "none" else 5.0)
                )

    def _ending(
        self, stderr: bytes
    ) -> tuple[Literal["ended", "signal", "timeout", "overflow"], int]:
        lines = self.words.decode("utf-8", "replace").splitlines()
        told = {word: said for word, _, said in (line.partition(" ") for line in lines)}
        if "missing" in told:
            raise MissingService(told["missing"])
        if "ready" not in told:
            said = stderr.decode("utf-8", "replace").strip()[-300:]
            raise NotStarted(f"the sandbox did not start: {said or 'no word from it'}")
        if self.overflow:
            return "overflow", 0
        if "timeout" in told:
            return "timeout", 0
        code = int(told.get("exit", -signal.SIGKILL))  # the warden was killed: out of memory
        return ("signal", -code) if code < 0 else ("ended", code)


def _outer(kind: str, job: dict[str, Any]) -> list[str]:
    """The command that starts the jail."""
    if kind != "bubblewrap":
        return [*python(), str(JAIL)]
    if os.getuid() == 0:
        raise MissingService("as root it limits no processes; namespaces of our own do")
    program = shutil.which("bwrap")
    if program is None:
        raise MissingService("bwrap is not installed")
    walls = [program, "--unshare-all", "--die-with-parent", "--cap-drop", "ALL"]
    walls += ["--uid", "65534", "--gid", "65534", "--dev", "/dev", "--remount-ro", "/dev"]
    walls += ["--size", str(job["files_mb"] * 2**20), "--tmpfs", "/tmp"]
    for source, target in job["shows"]:
        if os.path.islink(source):
            walls += ["--symlink", os.readlink(source), target]
        else:
            walls += ["--ro-bind", source, target]
    walls += ["--ro-bind", str(JAIL), "/jail.py", "--remount-ro", "/", "--chdir", "/tmp"]
    return [*walls, "--", *python(), "/jail.py"]
