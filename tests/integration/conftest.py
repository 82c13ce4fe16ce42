"""Runs of the real command line, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cohort(tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """`cohort("train", "recipe.yaml", ...)`: starts `python -m trainer` in tmp_path."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "100",
    }

    def start(*words: str | Path) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "trainer", *map(str, words)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.fixture
def finished(cohort: Callable[..., subprocess.Popen]) -> Callable[..., tuple[int, str]]:
    """As `cohort`, but waits: (exit code, output)."""

    def run(*words: str | Path, timeout: float = 240) -> tuple[int, str]:
        process = cohort(*words)
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output

    return run
