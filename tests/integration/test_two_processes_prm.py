"""A reward model trained by two processes (torchrun, gloo) is the one that a single process trains
on all groups, and gives every answer the same rewards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("prm_updates.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
CASES = ["after", "before", "dpo", "dpo_mean", "nca", "kto", "whole"]
GROUP = 3
"""Answers per group; groups go to the processes in turn."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Of one process, and of ranks 0 and 1 of two."""
    alone, together = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for words in ([SCRIPT, alone], [*TORCHRUN, SCRIPT, together]):
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    files = [alone / "rank_0.pt", together / "rank_0.pt", together / "rank_1.pt"]
    return [torch.load(file, weights_only=False) for file in files]


def test_every_case_is_checked(results) -> None:
    assert sorted(results[0]) == sorted(CASES)


@pytest.mark.parametrize("case", CASES)
def test_weights_report_and_rewards_are_equal(results, case: str) -> None:
    alone, *ranks = (result[case] for result in results)
    assert ranks[0]["report"] == ranks[1]["report"]
    for report, expected in zip(ranks[0]["report"], alone["report"], strict=True):
        assert report.keys() == expected.keys()
        for name, value in expected.items():
            assert report[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    assert alone["report"][-1]["largest_return"] > 0
    for name, expected in alone["weights"].items():
        assert torch.equal(ranks[0]["weights"][name], ranks[1]["weights"][name]), name
        torch.testing.assert_close(ranks[0]["weights"][name], expected, rtol=1e-4, atol=1e-6)
    for row, expected in enumerate(alone["rewards"]):
        group, member = divmod(row, GROUP)
        found = ranks[group % 2]["rewards"][group // 2 * GROUP + member]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_cases_differ(results) -> None:
    ends = [round(results[0][case]["rewards"][0].sum().item(), 5) for case in CASES]
    assert len(set(ends)) == len(CASES)
