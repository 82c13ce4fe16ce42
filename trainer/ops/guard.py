"""Runs a command and ends it, with all it started, when whoever asked for it is gone:
`python -m trainer.ops.guard FOLDERS COMMAND...` with a pipe as standard input.

The caller keeps the other end of the pipe; it closes however the caller dies. Then the folders
(joined with `:`) that it would have removed are removed too: some lie in memory. If this process
is killed as well, the kernel ends the command.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1


def main() -> int:
    folders, *command = sys.argv[1:]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent)

    def wait_for_the_caller() -> None:
        while os.read(0, 1):
            pass
        for folder in filter(None, folders.split(os.pathsep)):
            shutil.rmtree(folder, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)  # this process too

    threading.Thread(target=wait_for_the_caller, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = child.wait()
    sys.stderr.write(f"\nended with {_meaning(code)}\n")
    sys.stderr.flush()
    os.killpg(0, signal.SIGKILL)  # helpers the command left behind
    return code


def end_with_parent() -> None:
    """The kernel kills this process when the one that started it is gone. Linux only."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _meaning(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


if __name__ == "__main__":
    sys.exit(main())
