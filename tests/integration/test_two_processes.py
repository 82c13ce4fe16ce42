"""Two processes (torchrun, gloo) give what one process gives that holds all groups."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("updates.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def launch(*words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Of one process, and of ranks 0 and 1 of two."""
    alone, together = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    for process in (launch(SCRIPT, alone), launch(*TORCHRUN, SCRIPT, together)):
        assert process.returncode == 0, process.stderr
    files = [alone / "rank_0.pt", together / "rank_0.pt", together / "rank_1.pt"]
    return [torch.load(file, weights_only=False) for file in files]


CASES = [
    "token_mean",
    "token_mean_local",
    "seq_mean_token_mean",
    "dr_grpo",
    "batch_deviation",
    "kl_everywhere",
    "one_micro_batch",
    "nothing_on_rank_1",
    "epochs",
    "clip_cov",
    "kl_cov",
    "sequences",
    "selections",
    "a_parameter_that_no_row_uses",
    "critic",
    "critic_nothing_on_rank_1",
    "critic_warm_up",
    "shared_trunk",
]


def test_every_case_is_checked(results) -> None:
    assert sorted(results[0]) == sorted(CASES)


@pytest.mark.parametrize("case", CASES)
def test_gradients_weights_and_report_are_equal(results, case: str) -> None:
    alone, first, second = (result[case] for result in results)
    for kind in ("gradients", "weights"):
        assert alone[kind].keys() == first[kind].keys()
        largest = max(values.abs().max().item() for values in alone[kind].values())
        for name, expected in alone[kind].items():
            assert torch.equal(first[kind][name], second[kind][name]), (kind, name)
            torch.testing.assert_close(
                first[kind][name], expected, rtol=1e-5, atol=1e-6 * largest, msg=name
            )
    assert first["report"] == second["report"]
    for report, expected in zip(first["report"], alone["report"], strict=True):
        assert report.keys() == expected.keys()
        for name, value in expected.items():
            assert report[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_the_cases_differ(results) -> None:
    """A fixture that always trained on the same thing would pass everything above."""
    norms = [round(results[0][case]["report"][1]["train/grad_norm"], 6) for case in CASES]
    assert len(set(norms)) == len(CASES) - 2  # the budget and a spare parameter change nothing


def test_an_exception_on_one_process_ends_both(tmp_path: Path) -> None:
    began = time.perf_counter()
    process = launch(*TORCHRUN, SCRIPT, tmp_path, "fail")
    assert process.returncode != 0
    assert "ValueError: broken on purpose" in process.stderr
    assert not list(tmp_path.iterdir())
    assert time.perf_counter() - began < 120
