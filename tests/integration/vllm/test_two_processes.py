"""torchrun with vLLM in the trainers' processes: each has an engine of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.context import Context
from trainer.engines.vllm import Vllm
from trainer.errors import ConfigError
from trainer.models.pretrained import Pretrained

ROOT = Path(__file__).parents[3]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


async def test_one_engine_in_each_process(tmp_path):
    words = [
        "engine={type: vllm, max_model_len: 64}",
        f"output={tmp_path}",
        "steps=2",
        "rollouts.groups_per_step=8",
        "evaluation.limit=8",
        "monitors=[jsonl]",
    ]
    command = [*TORCHRUN, "-m", "trainer", "train", "recipes/quickstart_text.yaml", *words]
    process = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    lines = next(tmp_path.rglob("metrics.jsonl")).read_text().splitlines()
    gaps = [r["sync/probe_gap"] for r in map(json.loads, lines) if "sync/probe_gap" in r]
    assert len(gaps) >= 2
    assert max(gaps) < 1e-5
    rows = [json.loads(line) for line in next(tmp_path.rglob("rollouts.jsonl")).open()]
    assert {row["group"] for row in rows} == set(range(16))  # both processes' groups


async def test_a_wide_engine_in_each_process_is_refused(tmp_path):
    model = Pretrained(path=str(ROOT / "configs/model/tiny_text"))
    context = Context(tmp_path, 0, 1, "cpu", 0, 2, model, model.renderer())
    with pytest.raises(ConfigError, match=r"engine.tensor_parallel_size: 2 with 2 trainer proc"):
        async with Vllm(tensor_parallel_size=2).open(context):
            pass
