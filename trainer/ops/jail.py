"""Inside of the sandbox: walls a process in and runs untrusted Python there.

A plain script, with the standard library only, and as little of it as will do: `json`, `typing` and
`platform` would double the time of a run. Processes:

    launcher   reads the job; its only other duty is to write the id maps
    builder    in new user, mount, network, process and IPC namespaces; forks and waits
    warden     process 1 in there: builds the file system, gives up every right, holds the clock
    prisoner   runs the code

The warden cannot be signalled or traced from inside, and when it ends the kernel ends everything
else in its namespace. Only the first three can write to the control pipe. Nothing that is to stay
secret is handed to this file: a job holds code and inputs, never an expected result.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import resource
import signal
import struct
import sys
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

NOBODY = 65534
_NEW = 0x10000000 | 0x00020000 | 0x40000000 | 0x20000000 | 0x08000000 | 0x04000000
"""user, mount, net, pid, ipc, uts"""
_BIND, _REC, _PRIVATE, _NOSUID, _NODEV = 0x1000, 0x4000, 0x40000, 2, 4
_READ_ONLY, _NO_SETUID, _NO_DEVICES = 1, 2, 4  # of mount_setattr
_DEATH_SIGNAL, _DUMPABLE, _SECCOMP, _NO_NEW_PRIVILEGES = 1, 4, 22, 38

_CALLS = {
    "x86_64": {"arch": 0xC000003E, "pivot_root": 155, "clone": 56, "clone3": 435},
    "aarch64": {"arch": 0xC00000B7, "pivot_root": 41, "clone": 220, "clone3": 435},
}
_FORBIDDEN = {
    "x86_64": (
        *(29, 41, 64, 68, 101, 103, 155, 161, 165, 166, 169, 175, 179, 240, 246, 248, 249, 250),
        *(272, 298, 308, 310, 311, 313, 319, 321, 323),
    ),
    "aarch64": (
        *(39, 40, 41, 51, 60, 97, 104, 105, 116, 117, 142, 180, 186, 190, 194, 198, 217, 218, 219),
        *(241, 268, 270, 271, 273, 279, 280, 282),
    ),
}
"""Sockets, shared memory that no limit counts, tracing, mounts, namespaces, keys, modules, bpf."""
_FORBIDDEN_EVERYWHERE = (425, 428, 429, 430, 431, 432, 433, 438, 442, 447)
_CLOSE_RANGE, _MOUNT_SETATTR = 436, 442

_libc = ctypes.CDLL(None, use_errno=True)


class Missing(Exception):
    """Part of the isolation cannot be had here; the text names it."""


def _checked(result: int, what: str) -> None:
    if result < 0:
        raise Missing(f"{what}: {os.strerror(ctypes.get_errno())}")


def _call(number: int, *arguments: Any, what: str) -> None:
    _checked(_libc.syscall(ctypes.c_long(number), *arguments), what)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    asked = (source and source.encode(), target.encode(), kind and kind.encode())
    done = _libc.mount(*asked, ctypes.c_ulong(flags), data.encode())
    _checked(done, f"mount {target}")


def _restrict(path: str, attributes: int, *, deep: bool) -> None:
    wanted = struct.pack("QQQQ", attributes, 0, 0, 0)
    asked = (-100, path.encode(), 0x8000 if deep else 0, wanted, len(wanted))
    _call(_MOUNT_SETATTR, *asked, what=f"mount {path} read-only (mount_setattr, Linux 5.12)")


def _prctl(option: int, value: int, what: str) -> None:
    _checked(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), what)


def build_root(job: dict[str, Any]) -> None:
    """A file system of what the job shows, read-only, and an empty /tmp of limited size."""
    _mount(None, "/", None, _REC | _PRIVATE)
    _mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    os.chdir("/tmp")
    os.mkdir("old")
    _call(_CALLS[os.uname().machine]["pivot_root"], b".", b"old", what="pivot_root")
    os.chdir("/")
    os.makedirs("/tmp", exist_ok=True)
    size = f"size={job['files_mb']}m,nr_inodes=4096,mode=1777"
    _mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, size)  # first: Python may live below /tmp
    for source, target in job["shows"]:
        _show("/old" + source, target)
    os.makedirs("/dev", exist_ok=True)
    for name in ("null", "zero", "random", "urandom"):
        os.close(os.open(f"/dev/{name}", os.O_CREAT, 0o644))
        _mount(f"/old/dev/{name}", f"/dev/{name}", None, _BIND)
    _checked(_libc.umount2(b"/old", 2), "let go of the old root")
    os.rmdir("/old")
    _restrict("/", _READ_ONLY, deep=False)
    os.chdir("/tmp")


def _show(source: str, target: str) -> None:
    parent = os.path.dirname(target)
    os.makedirs(parent, mode=0o755, exist_ok=True)
    if os.path.lexists(target):
        return  # inside of what is shown already
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.mkdir(target, 0o755)
    elif os.path.exists(source):
        os.close(os.open(target, os.O_CREAT, 0o644))
    else:
        return
    _mount(source, target, None, _BIND | _REC)
    _restrict(target, _READ_ONLY | _NO_SETUID | _NO_DEVICES, deep=True)


def give_up_rights(*, was_root: bool) -> None:
    """No root, no groups, no capabilities, and no way to get any."""
    if was_root:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header, nothing = struct.pack("Ii", 0x20080522, 0), bytes(24)
    _checked(_libc.capset(header, nothing), "drop capabilities")
    _prctl(_NO_NEW_PRIVILEGES, 1, "no_new_privs")


def filter_calls() -> None:
    """Seccomp: system calls of `_FORBIDDEN` fail with EPERM, clone3 with ENOSYS (so that clone is
    used, whose flags a filter can see), another architecture's calls end the process."""
    machine = os.uname().machine
    numbers = _CALLS[machine]
    program = [(0x20, 0, 0, 4), (0x15, 1, 0, numbers["arch"]), (0x06, 0, 0, 0x80000000)]
    program += [(0x20, 0, 0, 0), (0x35, 0, 1, 0x40000000), (0x06, 0, 0, 0x80000000)]
    for number in (*_FORBIDDEN[machine], *_FORBIDDEN_EVERYWHERE):
        program += [(0x15, 0, 1, number), (0x06, 0, 0, 0x50001)]
    program += [(0x15, 0, 1, numbers["clone3"]), (0x06, 0, 0, 0x50026)]
    program += [(0x15, 0, 3, numbers["clone"]), (0x20, 0, 0, 16)]
    program += [(0x45, 0, 1, _NEW), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    given = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    _checked(_libc.prctl(_SECCOMP, ctypes.c_ulong(2), given, 0, 0), "seccomp filter")


def limit(job: dict[str, Any], *, alone: bool) -> None:
    """`alone`: the count of processes is that of this sandbox, not that of a whole user."""
    mb = 2**20
    seconds = int(job["seconds"]) + 2
    limits = {
        resource.RLIMIT_AS: job["memory_mb"] * mb,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: job["files_mb"] * mb,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    if sys.platform == "linux":
        limits[resource.RLIMIT_MEMLOCK] = 0
        limits[resource.RLIMIT_MSGQUEUE] = 0
    if alone:
        limits[resource.RLIMIT_NPROC] = job["processes"] + 2  # builder and warden
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _close_from(first: int) -> None:
    """However high their numbers are, which are those that the caller had for them."""
    if sys.platform == "linux":
        _libc.syscall(ctypes.c_long(_CLOSE_RANGE), first, ctypes.c_uint(2**32 - 1), 0)
    os.closerange(first, 256)  # before Linux 5.9


def _die_with_parent() -> None:
    if sys.platform == "linux":
        _libc.prctl(_DEATH_SIGNAL, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)


def _say(fd: int, word: str, said: object = "") -> None:
    """One line for whoever waits outside."""
    line = " ".join(f"{word} {said}".split())
    os.write(fd, line.encode("utf-8", "replace") + b"\n")


def prisoner(job: dict[str, Any], result: int, *, walled: bool) -> NoReturn:
    """Runs the code as `__main__`, with fd 3 for its result, and ends like it does."""
    inputs = os.open("input", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.unlink("input")
    with os.fdopen(os.dup(inputs), "wb") as file:
        file.write(job["stdin"].encode("utf-8", "surrogatepass"))
    os.lseek(inputs, 0, os.SEEK_SET)
    os.dup2(inputs, 0)
    os.dup2(result, 3)
    _close_from(4)
    limit(job, alone=walled)
    if walled:
        os.setsid()  # a group spans namespaces: `kill(0, ...)` would reach builder and launcher
        filter_calls()
    sys.stdin = open(0, encoding="utf-8", errors="replace")  # noqa: SIM115
    sys.argv = ["main.py"]
    sys.path += job["path"]
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    scope = module.__dict__
    scope.update(REQUEST=job["request"], __name__="__main__")
    ended = 0
    try:
        exec(compile(job["source"], "main.py", "exec"), scope)
    except SystemExit as error:
        code = error.code
        ended = code & 255 if isinstance(code, int) else int(code is not None)
    except BaseException as error:
        import traceback

        with suppress(BaseException):
            trace = error.__traceback__ and error.__traceback__.tb_next  # without this file
            traceback.print_exception(error.with_traceback(trace), limit=-3)
        ended = 1
    with suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(ended)


def warden(job: dict[str, Any], control: int, result: int, *, was_root: bool) -> NoReturn:
    walled = job["isolation"] != "none"
    try:
        if job["isolation"] == "namespaces":
            build_root(job)
        if walled:
            give_up_rights(was_root=was_root)
            _prctl(_DUMPABLE, 0, "keep tracers off")
        _die_with_parent()  # a change of user clears it
    except (Missing, OSError) as error:
        _say(control, "missing", error)
        os._exit(3)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    _say(control, "ready")
    end = time.monotonic() + job["seconds"]
    child = os.fork()
    if not child:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            prisoner(job, result, walled=walled)
        except BaseException as error:
            os.write(2, f"cannot start: {error}".encode())
        finally:
            os._exit(1)
    for fd in {0, 1, 2, result}:
        os.close(fd)
    ended: tuple[str, object] = ("timeout", "")
    while (left := end - time.monotonic()) > 0:
        done, status = os.waitpid(-1, os.WNOHANG)
        if done == child:
            ended = ("exit", os.waitstatus_to_exitcode(status))
            break
        if not done and sys.platform == "linux":
            signal.sigtimedwait({signal.SIGCHLD}, left)
        elif not done:
            time.sleep(0.01)
    if not walled:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    _say(control, *ended)
    os._exit(0)  # process 1: everything in the namespace ends here


def builder(job: dict[str, Any], control: int, result: int, turns: tuple[int, int]) -> NoReturn:
    try:
        _die_with_parent()
        _checked(_libc.unshare(_NEW), "new namespaces (user, mount, net, pid, ipc)")
        os.write(turns[1], b"u")
        if os.read(turns[0], 1) != b"m":
            os._exit(3)
        child = os.fork()
    except (Missing, OSError) as error:
        _say(control, "missing", error)
        os._exit(3)
    if not child:
        warden(job, control, result, was_root=job["root"])
    for fd in (0, 1, 2, result, control):
        os.close(fd)
    os.waitpid(child, 0)
    os._exit(0)


def write_maps(process: int, *, root: bool) -> None:
    """Root keeps itself for the mounts and gets nobody to become; a user becomes nobody alone."""
    user, group = os.getuid(), os.getgid()
    own = f"0 0 1\n{NOBODY} {NOBODY} 1\n"
    if not root:
        with open(f"/proc/{process}/setgroups", "w") as file:
            file.write("deny")
    for name, outer in (("uid_map", user), ("gid_map", group)):
        with open(f"/proc/{process}/{name}", "w") as file:
            file.write(own if root else f"{NOBODY} {outer} 1\n")


def launch(job_fd: int, control: int, result: int) -> None:
    _die_with_parent()
    os.umask(0o022)
    with os.fdopen(job_fd, "rb") as stream:
        job = marshal.loads(stream.read())
    job["root"] = os.getuid() == 0
    if job["isolation"] != "namespaces":
        if job["isolation"] == "none":
            os.chdir(job["folder"])
        warden(job, control, result, was_root=False)
    mine, theirs = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        builder(job, control, result, (theirs[0], mine[1]))
    os.close(mine[1])
    os.close(theirs[0])
    for fd in (0, 1, 2, result):
        os.close(fd)
    if os.read(mine[0], 1) == b"u":
        try:
            write_maps(child, root=job["root"])
            os.write(theirs[1], b"m")
        except OSError as error:
            _say(control, "missing", f"map of user ids: {error}")
    os.close(theirs[1])
    os.close(control)
    os.waitpid(child, 0)


if __name__ == "__main__":
    launch(*(int(text) for text in sys.argv[1:4]))
