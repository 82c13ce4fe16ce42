"""`python -m trainer.arm train ...`: the command line, in a process that ends with its parent.

The parent holds the other end of standard input. Where the parent is killed, even by SIGKILL, that
end closes, and a run whose result nobody waits for does not go on writing.
"""

from __future__ import annotations

import os
import sys
import threading

from trainer.cli import FAILED, main


def _end_with_the_parent() -> None:
    os.read(0, 1)  # not sys.stdin: its lock would be held when the interpreter ends
    os._exit(FAILED)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    sys.exit(main(sys.argv[1:]))
