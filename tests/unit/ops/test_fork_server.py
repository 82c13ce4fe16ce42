"""The server does its part once; no run leaves anything to the next, to it, or to whoever asked."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainer.errors import MissingService
from trainer.ops import fork_server
from trainer.ops.fork_server import First
from trainer.ops.sandbox import Cell, Sandbox

LIMITS = Sandbox(seconds=5, memory_mb=256)


@pytest.fixture(scope="module", autouse=True)
def _stands():
    if fault := LIMITS.fault("namespaces"):
        pytest.skip(fault)


@pytest.fixture
def make_cell():
    """`make_cell(source, given)`: with a server that begins so."""

    def make(source: str = "", given: object = None, **fields: bool) -> Cell:
        return Cell.of(LIMITS, "namespaces", First(source, given, **fields))

    return make


def test_it_begins_once(make_cell):
    source = "import os, string\ndef prepare(given): string.mine = [os.getcwd(), given]"
    cell = make_cell(source, {"a": (1, 2)})
    code = "import string; print(string.mine, 'socket' in dir())"
    first, second = cell.run(code), cell.run(code)
    assert first.stdout == second.stdout
    assert b"{'a': (1, 2)}] False" in first.stdout
    folder = first.stdout.decode().split("'")[1]
    assert "/cohort-sandbox-" in folder
    assert not Path(folder).exists()
    assert b"AttributeError" in make_cell().run(code).stderr, "another server is not prepared"


def test_it_takes_none_of_the_codes_time(make_cell):
    cell = make_cell("import time; time.sleep(0.6)")
    done = cell.run("print(1)", seconds=0.3)
    assert (done.stdout, done.reason) == (b"1\n", "")


def test_packages_are_imported_ahead_only_where_it_is_said(make_cell):
    code = "import sys; print('numpy' in sys.modules)"
    assert make_cell("import numpy", packages=True).run(code).stdout == b"True\n"
    with pytest.raises(MissingService, match="ModuleNotFoundError: No module named 'numpy'"):
        make_cell("import numpy").run(code)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("1 / 0", "did not begin: ZeroDivisionError: division by zero"),
        ("import os; os._exit(3)", "did not begin: it ended"),
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=[9]).start()",
            "it left threads",
        ),
        ("import mmap, sys\nsys.kept = mmap.mmap(-1, 4096)", "memory that runs would share"),
    ],
)
def test_what_it_must_not_leave(make_cell, source, says):
    with pytest.raises(MissingService, match=says):
        make_cell(source).run("print(1)")


def test_memory_that_is_shared_is_a_way_from_run_to_run(make_cell, tmp_path, monkeypatch):
    """Why it must not be left: without that look at it, one run writes what the next one reads."""
    server = tmp_path / "server.py"
    text = fork_server.SERVER.read_text()
    server.write_text(text.replace('if "w" in rights', 'if "W" in rights'))
    monkeypatch.setattr(fork_server, "SERVER", server)
    cell = make_cell("import mmap, sys\nsys.kept = mmap.mmap(-1, 4096)")
    assert cell.run("import sys; sys.kept[:4] = b'leak'").fine
    assert cell.run("import sys; print(sys.kept[:4])").stdout == b"b'leak'\n"


POISON = """
import atexit, builtins, gc, json, os, resource, signal, string, sys, threading, time
open("/tmp/left", "w").write("x")
json.dumps = lambda *a, **k: "poisoned"
string.mine = "poisoned"
builtins.print = lambda *a: os.write(1, b"poisoned")
sys.modules["socket"] = None
sys.path[:] = ["/tmp"]
os.environ["LEFT"] = "x"
os.umask(0o777)
os.chdir("/usr")
os.nice(5)
resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
threading.Thread(target=time.sleep, args=[60], daemon=True).start()
if not os.fork():
    os.setsid()
    time.sleep(60)
for module in list(sys.modules.values()):
    if module and module.__name__ != "os":
        module.__dict__["poisoned"] = True
os._exit(0)
"""
LOOK = """
import builtins, json, os, resource, signal, string, sys, threading
print(os.listdir("/tmp"), json.dumps({"a": 1}), string.mine, sys.modules.get("socket", 1) is None)
print(sys.path, sorted(os.environ.items()), os.umask(0o22), os.getcwd(), os.nice(0))
print(resource.getrlimit(resource.RLIMIT_NOFILE), signal.getsignal(signal.SIGTERM))
print(signal.pthread_sigmask(signal.SIG_BLOCK, []), threading.active_count(), os.getpid())
print([name for name, module in sys.modules.items() if hasattr(module, "poisoned")])
"""


def test_a_run_leaves_nothing_to_the_next(make_cell):
    cell = make_cell("import json, string\nstring.mine = 1")
    before = cell.run(LOOK)
    assert before.fine, before.reason
    pid = cell.server.pid
    assert cell.run(POISON).fine
    assert cell.run(LOOK).stdout == before.stdout
    assert cell.server.pid == pid, "the same server"


def test_the_poison_works(make_cell):
    """In one run; else that it leaves nothing would say nothing."""
    cell = make_cell("import json, string\nstring.mine = 1")
    both = POISON.replace("os._exit(0)", "") + LOOK.replace("print(", "builtins.kept(")
    both = "import builtins\nbuiltins.kept = print\n" + both
    clean, poisoned = cell.run(LOOK).stdout, cell.run(both).stdout
    for a, b in zip(clean.splitlines(), poisoned.splitlines(), strict=True):
        assert a != b


def test_the_server_never_holds_what_a_run_is_given(make_cell):
    """Its whole memory, read: what it did itself is there, a job is not."""
    cell = make_cell("import string\ndef prepare(given): string.mine = given", "in-the-server")
    secret = f"in-the-job-{os.getpid()}"
    code = f"kept = REQUEST  # {secret}-code\nprint(len(input()))"
    assert cell.run(code, request=[secret], stdin=secret).stdout == f"{len(secret)}\n".encode()
    memory = held_by(cell.server.pid)
    assert b"in-the-server" in memory
    assert secret.encode() not in memory


def held_by(pid: int) -> bytes:
    found = b""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if rights.startswith("rw"):
                start, end = (int(text, 16) for text in span.split("-"))
                memory.seek(start)
                found += memory.read(end - start)
    return found


def test_a_run_has_no_descriptor_besides_its_own(make_cell):
    code = """
import os
def opened(fd):
    try: return bool(os.fstat(fd))
    except OSError: return False
print([fd for fd in range(70000) if opened(fd)])
"""
    ours = [os.dup(0) for _ in range(300)]  # so that new ones have high numbers
    try:
        assert make_cell().run(code).stdout == b"[0, 1, 2, 3]\n"
    finally:
        for fd in ours:
            os.close(fd)


def test_it_cannot_be_signalled_and_is_replaced_where_it_dies(make_cell):
    cell = make_cell()
    code = "import os\nfor pid in [-1, *range(1, REQUEST + 9)]:\n"
    code += "    try: pid == os.getpid() or os.kill(pid, 9)\n    except OSError: pass\nprint(1)"
    assert cell.run(code, request=os.getpid() + 200).stdout == b"1\n"
    first = cell.server.pid
    os.kill(first, 0)
    os.kill(first, signal.SIGKILL)
    assert cell.run("print(2)").stdout == b"2\n"
    assert cell.server.pid != first
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_killed_in_the_middle_of_a_run_it_takes_the_run_along(make_cell):
    cell = make_cell()
    cell.run("")
    timer = threading.Timer(0.3, os.kill, (cell.server.pid, signal.SIGKILL))
    timer.start()
    done = cell.run("import time; time.sleep(60)")
    timer.join()
    assert (done.status, done.code) == ("signal", signal.SIGKILL)
    assert done.seconds < 3
    assert cell.run("print(2)").stdout == b"2\n"


def test_runs_of_many_threads_take_turns(make_cell):
    """Also once the thread that started the server is gone."""
    cell = make_cell()
    starts = threading.Thread(target=cell.run, args=("",))
    starts.start()
    starts.join()
    pid = cell.server.pid
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda n: cell.run("print(REQUEST)", request=n).stdout, range(8))
    assert list(found) == [b"%d\n" % n for n in range(8)]
    assert cell.server.pid == pid


def test_it_ends_with_its_cell_and_a_copy_has_its_own(make_cell):
    cell = make_cell("import string\nstring.mine = 7")
    copy = pickle.loads(pickle.dumps(cell))
    code = "import string; print(string.mine)"
    assert (cell.run(code).stdout, copy.run(code).stdout) == (b"7\n", b"7\n")
    pids = [cell.server.pid, copy.server.pid]
    assert len(set(pids)) == 2
    del cell
    assert copy.run(code).stdout == b"7\n"
    del copy
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_count_of_processes_is_each_runs_own(make_cell):
    """Though all runs on a machine have one user."""
    code = """
import os, time
made = 0
try:
    while made < 9 and (child := os.fork()):
        made += 1
    if made < 9 and not child: time.sleep(60)
except OSError:
    pass
print(made, flush=True)
time.sleep(1)
"""
    cells = [make_cell(), make_cell()]
    for cell in cells:
        cell.run("")
    with ThreadPoolExecutor(2) as threads:
        made = [int(done.stdout) for done in threads.map(lambda cell: cell.run(code), cells)]
    assert min(made) >= LIMITS.processes - 1  # itself is one of them
    assert max(made) <= LIMITS.processes


def test_what_a_run_leaves_running_is_gone_before_the_next(make_cell):
    """Also out of the launcher's process group, and deaf to its parent's death."""
    cell = make_cell()
    code = "import ctypes, os, time\nif not os.fork():\n    os.setsid()\n"
    code += "    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\n    time.sleep(60)"
    assert cell.run(code).fine
    end = time.monotonic() + 5
    while (left := descendants(cell.server.pid)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not left


def descendants(pid: int) -> list[int]:
    children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [one for child in children for one in descendants(child)]


def test_descendants_are_seen(make_cell):
    cell = make_cell()
    cell.run("")
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(cell.run, "import time; time.sleep(0.5)")
        time.sleep(0.3)
        assert len(descendants(cell.server.pid)) >= 4  # launcher, builder, warden, prisoner
        assert running.result().fine
