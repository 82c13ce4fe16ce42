"""A headless Chromium, and pages of small runs that go through the real monitors."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def chromium_module() -> ModuleType:
    return _loaded(Path(__file__).with_name("chromium.py"))


@pytest.fixture(scope="session")
def browser(chromium_module: ModuleType) -> Iterator[object]:
    program = chromium_module.find_chromium()
    if program is None:
        pytest.skip("no Chromium: scripts/setup.sh dev installs one, or set COHORT_CHROMIUM")
    browser = chromium_module.Chromium(program)
    yield browser
    browser.close()


@pytest.fixture
def invented(tmp_path_factory: pytest.TempPathFactory):
    """`invented(rollouts, words)`: the page of an invented run, made once per session."""

    def make(rollouts: int, words: int = 40) -> Path:
        folder = tmp_path_factory.getbasetemp() / f"invented_{rollouts}_{words}"
        if not (folder / "page.html").is_file():
            subprocess.run(
                [
                    sys.executable,
                    "scripts/bench/page.py",
                    folder,
                    f"--rollouts={rollouts}",
                    f"--words={words}",
                ],
                cwd=ROOT,
                check=True,
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            )
        return folder / "page.html"

    return make
