"""Attacks, and the walls that hold each: with all of them it does nothing, with any one of them
alone it does nothing, with none of them it works. The walls are taken out of a copy of the jail,
which is otherwise the real one; what is attacked is made for the purpose."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import MissingService
from trainer.ops import fork_server
from trainer.ops.sandbox import Cell, Outcome, Sandbox

LIMITS = Sandbox(seconds=5, memory_mb=256)
NOBODY = 65534

WALLS = {
    "file system": (
        "            build_root(job)\n",
        '            os.chmod(job["folder"], 0o777)\n            os.chdir(job["folder"])\n',
    ),
    "read-only": ("    _restrict(target, _READ_ONLY | _NO_SETUID | _NO_DEVICES, deep=True)\n", ""),
    "size of /tmp": ("size={job['files_mb']}m,", ""),
    "network namespace": ("| 0x40000000 ", ""),
    "process namespace": ("| 0x20000000 ", ""),
    "system calls": ("        filter_calls()\n", ""),
    "count of processes": ("    if alone:\n", "    if not alone:\n"),
    "address space": ("        resource.RLIMIT_AS: job", "        resource.RLIMIT_DATA: 64 * job"),
    "closed descriptors": ("    _close_from(4)\n", ""),
    "not dumpable": ("_prctl(_DUMPABLE, 0,", "_prctl(_DUMPABLE, 1,"),
}
"""Name: what builds it, and what stands there without it."""


@dataclass(frozen=True)
class Attack:
    """Code that is given `request`, may read `shows`, and did harm if `harmed` says so."""

    code: str
    request: Any
    harmed: Callable[[Outcome], bool]
    shows: tuple[Path, ...] = ()


@contextmanager
def throw_away() -> Iterator[Path]:
    """A folder that anyone on this machine may write to."""
    folder = Path(tempfile.mkdtemp(prefix="cohort-walls-"))
    file, inner = folder / "kept.txt", folder / "inner"
    file.write_text("sk-secret")
    inner.mkdir()
    for path, mode in ((file, 0o666), (inner, 0o777), (folder, 0o777)):
        path.chmod(mode)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


CHANGES = {
    "removes": "import os; os.rmdir(REQUEST + '/inner')",
    "unlinks": "import os; os.unlink(REQUEST + '/kept.txt')",
    "overwrites": "open(REQUEST + '/kept.txt', 'w').write('x')",
    "truncates": "import os; os.truncate(REQUEST + '/kept.txt', 0)",
    "renames": "import os; os.rename(REQUEST + '/kept.txt', REQUEST + '/inner/x')",
    "makes": "open(REQUEST + '/new', 'w')",
    "links": "import os; os.symlink('x', REQUEST + '/new')",
}


@contextmanager
def wipes(act: str, *, shown: bool) -> Iterator[Attack]:
    with throw_away() as folder:

        def state() -> dict[str, bytes]:
            return {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}

        before = state()
        where = f"/data/{folder.name}" if shown else str(folder)
        shows = (folder,) if shown else ()
        yield Attack(CHANGES[act], where, lambda done: state() != before, shows)


@contextmanager
def reads() -> Iterator[Attack]:
    with throw_away() as folder:
        code = "print(open(REQUEST).read())"
        yield Attack(code, str(folder / "kept.txt"), lambda done: b"sk-secret" in done.stdout)


@contextmanager
def bystander() -> Iterator[int]:
    """A process of the user whom the code runs as, with a secret in its command."""
    who = {"user": NOBODY} if os.getuid() == 0 else {}
    command = ["sh", "-c", "sleep 60; exit", "sk-secret"]
    with subprocess.Popen(command, cwd="/", start_new_session=True, **who) as process:
        try:
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def spies() -> Iterator[Attack]:
    code = "print(open(f'/proc/{REQUEST}/cmdline').read())"
    with bystander() as pid:
        yield Attack(code, pid, lambda done: b"sk-secret" in done.stdout)


@contextmanager
def kills() -> Iterator[Attack]:
    with bystander() as pid:

        def harmed(done: Outcome) -> bool:
            time.sleep(0.1)
            return os.waitpid(pid, os.WNOHANG)[0] == pid

        yield Attack(f"import os; os.kill(REQUEST, {signal.SIGKILL:d})", pid, harmed)


@contextmanager
def connects(family: socket.AddressFamily, address: Any) -> Iterator[Attack]:
    with socket.socket(family) as server:
        server.bind(address)
        server.listen()
        server.settimeout(0.05)

        def harmed(done: Outcome) -> bool:
            with suppress(TimeoutError):
                server.accept()[0].close()
                return True
            return False

        code = "import socket\nsocket.socket(REQUEST[0]).connect(REQUEST[1])"
        yield Attack(code, [int(family), server.getsockname()], harmed)


@contextmanager
def sends() -> Iterator[Attack]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.05)

        def harmed(done: Outcome) -> bool:
            with suppress(TimeoutError):
                return server.recv(9) == b"x"
            return False

        code = "import socket\n"
        code += "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', REQUEST)"
        yield Attack(code, server.getsockname(), harmed)


FORKS = """
import os, time
made = []
try:
    for _ in range(REQUEST):
        child = os.fork()
        if not child:
            time.sleep(60)
        made.append(child)
except OSError:
    pass
print(len(made))
for child in made:
    os.kill(child, 9)
"""


@contextmanager
def forks() -> Iterator[Attack]:
    """A bomb with a fuse: its children do not fork."""
    most = LIMITS.processes + 4
    yield Attack(FORKS, most, lambda done: int(done.stdout) > LIMITS.processes)


@contextmanager
def fills_memory() -> Iterator[Attack]:
    code = "x = bytearray(REQUEST)\nprint(len(x))"
    size = LIMITS.memory_mb * 2**20
    yield Attack(code, size, lambda done: done.stdout == f"{size}\n".encode())


@contextmanager
def fills_disk() -> Iterator[Attack]:
    code = "for i in range(REQUEST):\n    open(f'f{i}', 'wb').write(bytes(2**20))\nprint('done')"
    yield Attack(code, LIMITS.files_mb + 2, lambda done: done.stdout == b"done\n")


@contextmanager
def forges_its_ending() -> Iterator[Attack]:
    code = """
import os, time
for fd in range(4, 64):
    try: os.write(fd, b"exit 77\\n")
    except OSError: pass
time.sleep(0.3)
"""
    yield Attack(code, None, lambda done: done.code == 77)


@contextmanager
def calls(worked: str) -> Iterator[Attack]:
    code = "import ctypes\nfrom struct import pack\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    code += f"buffer = ctypes.create_string_buffer(8)\nprint({worked})"
    yield Attack(code, None, lambda done: done.stdout == b"True\n")


MAKES_NAMESPACES = "libc.unshare(0x10000000) == 0"
CLONES_UNSEEN = "libc.syscall(435, None, 0) == -1 and ctypes.get_errno() != 38"
READS_THE_WARDEN = """libc.process_vm_readv(
    1, pack("PN", ctypes.addressof(buffer), 8), 1, pack("PN", id(None), 8), 1, 0
) == 8"""


ATTACKS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    **{
        f"{act} what it is shown": (lambda act=act: wipes(act, shown=True), ("read-only",))
        for act in CHANGES
    },
    **{
        f"{act} what it is not shown": (lambda act=act: wipes(act, shown=False), ("file system",))
        for act in CHANGES
    },
    "reads a file": (reads, ("file system",)),
    "reads another's command": (spies, ("file system",)),
    "kills a process": (kills, ("process namespace",)),
    "connects": (
        lambda: connects(socket.AF_INET, ("127.0.0.1", 0)),
        ("network namespace", "system calls"),
    ),
    "connects without a network": (
        lambda: connects(socket.AF_UNIX, f"\0cohort-{os.getpid()}"),
        ("network namespace", "system calls"),
    ),
    "sends": (sends, ("network namespace", "system calls")),
    "forks": (forks, ("count of processes",)),
    "fills memory": (fills_memory, ("address space",)),
    "fills the disk": (fills_disk, ("size of /tmp",)),
    "forges its ending": (forges_its_ending, ("closed descriptors",)),
    "makes namespaces": (lambda: calls(MAKES_NAMESPACES), ("system calls",)),
    "clones unseen": (lambda: calls(CLONES_UNSEEN), ("system calls",)),
    "reads its warden": (lambda: calls(READS_THE_WARDEN), ("system calls", "not dumpable")),
}


@pytest.fixture(scope="module")
def kind() -> str:
    try:
        return LIMITS.open().kind
    except MissingService as error:
        if not re.search("new namespaces|map of user ids|mount |has no isolation", str(error)):
            raise
        pytest.skip(str(error))


@pytest.fixture
def without(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[tuple[str, ...]], Cell]:
    """A cell that lacks some of its walls."""

    def make(names: tuple[str, ...]) -> Cell:
        if kind != "namespaces":
            pytest.skip("walls of bubblewrap cannot be taken out one by one")
        source = fork_server.JAIL.read_text()
        for name in names:
            there, instead = WALLS[name]
            assert source.count(there) == 1, f"{name}: the jail builds it in other words now"
            source = source.replace(there, instead)
        jail = tmp_path / "jail.py"
        jail.write_text(source)
        monkeypatch.setattr(fork_server, "JAIL", jail)
        return Cell.of(LIMITS, kind)

    return make


def harm(cell: Cell, make: Callable[[], Any]) -> bool:
    with make() as attack:
        done = cell.run(attack.code, request=attack.request, shows=attack.shows)
        return attack.harmed(done)


@pytest.fixture(scope="module", params=["what is there", "bubblewrap"])
def whole(request: pytest.FixtureRequest, kind: str) -> Cell:
    if request.param != "bubblewrap":
        return Cell.of(LIMITS, kind)
    if not shutil.which("bwrap") or os.getuid() == 0:
        pytest.skip("bubblewrap is for users, and has to be installed")
    return LIMITS.model_copy(update={"isolation": "bubblewrap"}).open()


def test_variables_of_the_caller(kind, monkeypatch):
    monkeypatch.setenv("API_KEY", "sk-secret")
    code = "import os; print(dict(os.environ))"
    assert b"sk-secret" not in Cell.of(LIMITS, kind).run(code).stdout
    monkeypatch.setattr(fork_server, "environment", lambda: dict(os.environ))
    assert b"sk-secret" in Cell.of(LIMITS, kind).run(code).stdout


@pytest.mark.parametrize("name", ATTACKS)
def test_the_walls_hold_it(name, whole):
    assert not harm(whole, ATTACKS[name][0])


@pytest.mark.parametrize("name", ATTACKS)
def test_it_works_where_its_walls_are_down(name, without):
    make, walls = ATTACKS[name]
    assert harm(without(walls), make)


@pytest.mark.parametrize(
    ("name", "wall"),
    [(name, wall) for name, (_, walls) in ATTACKS.items() if len(walls) > 1 for wall in walls],
)
def test_one_wall_alone_holds_it(name, wall, without):
    make, walls = ATTACKS[name]
    assert not harm(without(tuple(one for one in walls if one != wall)), make)
