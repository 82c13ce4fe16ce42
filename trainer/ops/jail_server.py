"""Forks the launchers of `trainer.ops.jail`, after what every run begins with was done once.

A plain script, started by `trainer.ops.fork_server`. It stands where launchers do, outside of all
walls, which each of them builds anew: no run can name, signal or trace it. It runs trusted code
only, and never reads a job: it passes its descriptors on. So a run starts from a copy of memory
that no other has seen, and what it does to its copy ends with it.
"""

from __future__ import annotations

import gc
import marshal
import os
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def begin(first: dict[str, Any]) -> str:
    """Runs trusted code. What is wrong with what it leaves; empty if nothing is."""
    os.chdir(first["folder"])
    path = sys.path[:]
    sys.path += first["path"]
    try:
        scope: dict[str, Any] = {"__name__": "first"}
        exec(compile(first["source"], "first.py", "exec"), scope)
        if "prepare" in scope:
            scope["prepare"](first["given"])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    sys.path[:] = path
    os.chdir("/")
    end = time.monotonic() + 1.0
    while len(os.listdir("/proc/self/task")) > 1:
        if time.monotonic() > end:
            return "it left threads, which a fork loses"
        time.sleep(0.01)
    with open("/proc/self/maps") as file:
        for line in file:
            rights = line.split()[1]
            if "w" in rights and "s" in rights:
                return f"it left memory that runs would share: {line.strip()}"
    return ""


def serve(jail: Any, channel_fd: int) -> None:
    """Each message is the five descriptors of a run, or none; both end the run before. The end of
    the channel is that of the caller (the signal for it would be sent when a thread ends)."""
    channel = socket.socket(fileno=channel_fd)
    with os.fdopen(os.dup(0), "rb") as stream:
        wrong = begin(marshal.loads(stream.read()))
    os.dup2(1, 0)  # nothing, both
    gc.collect()
    gc.freeze()  # a collection in a run would copy every page
    channel.send(wrong.encode("utf-8", "replace")[:2000] or b"ready")
    launcher = 0
    while not wrong:
        word, fds, *_ = socket.recv_fds(channel, 1, 5)
        if launcher:
            os.killpg(launcher, signal.SIGKILL)
            os.waitpid(launcher, 0)
            launcher = 0
        if not word:
            return
        if fds:
            launcher = os.fork()
            if not launcher:
                channel.close()
                os.setpgid(0, 0)
                *fds, out, err = fds
                for fd, number in ((out, 1), (err, 2)):
                    os.dup2(fd, number)
                    os.close(fd)
                jail.launch(*fds)
                os._exit(0)
            os.setpgid(launcher, launcher)
        for fd in fds:
            os.close(fd)


if __name__ == "__main__":
    jail = type(sys)("jail")
    with open(sys.argv[1], encoding="utf-8") as file:
        exec(compile(file.read(), sys.argv[1], "exec"), jail.__dict__)
    serve(jail, int(sys.argv[2]))
