"""What code in the sandbox sees of this machine's files, all of it read-only."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from trainer.errors import MissingService

SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/fonts")
DATA = "/data"
"""Where a shown file lies inside."""


def packages_path() -> list[str]:
    """What `sys.path` has for installed packages."""
    return [*{sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}]


def shown(packages: bool, files: tuple[Path, ...]) -> list[tuple[str, str]]:
    """(outside, inside) of what can be read; outer folders before what is in them."""
    prefixes = {sys.base_prefix, sys.prefix} if packages else {sys.base_prefix}
    prefixes |= {
        os.path.realpath(prefix) for prefix in prefixes
    }  # what was imported ahead names it
    for prefix in prefixes:
        if Path.home().is_relative_to(prefix):
            raise MissingService(f"Python is installed in {prefix}, which holds your home folder")
    named = sorted({path for path in (*SYSTEM, *prefixes) if os.path.lexists(path)})
    named = [
        path
        for path in named
        if not any(path != other and Path(path).is_relative_to(other) for other in named)
    ]
    # a link to an installation would lead to what is not shown
    found = [(os.path.realpath(path) if path in prefixes else path, path) for path in named]
    return found + [(os.path.realpath(file), f"{DATA}/{file.name}") for file in files]
