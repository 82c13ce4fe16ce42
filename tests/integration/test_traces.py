"""A real run logs what its page shows, by one process and by two; it trains as it does without."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.monitors.base import read_rows
from trainer.ops.traces import unpack, unpack_ends
from trainer.page.build import write_page

ROOT = Path(__file__).parents[2]
RECIPE = """
name: {name}
steps: 2
threads: 1
model: tiny_vision
policy: vision_lm
prompts: {{type: synthetic/shapes, question: where, holdout: 4}}
rollouts: {{groups_per_step: 4, group_size: 3, sampling: {{max_tokens: 5}}}}
reward: {{function: "lengths:varied"}}
modifiers: [{{type: kl, coef: 0.05}}]
learner: {{lr: 1.0e-3, minibatches: 2}}
evaluation: {{limit: 2}}
monitors: {monitors}
"""
REWARD = """
def varied(completion_ids, **columns):
    return [float(sum(ids) % 7) for ids in completion_ids]
"""


@pytest.fixture
def trained(tmp_path):
    """`trained(processes, monitors)`: the run folder."""
    (tmp_path / "lengths.py").write_text(REWARD)

    def run(processes: int, monitors: str) -> Path:
        name = f"run_{processes}_{monitors.count(',')}"
        recipe = tmp_path / f"{name}.yaml"
        recipe.write_text(RECIPE.format(name=name, monitors=monitors))
        many = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        done = subprocess.run(
            [sys.executable, *(many if processes > 1 else []), "-m", "trainer", "train", recipe],
            cwd=tmp_path,
            env=os.environ
            | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return tmp_path / "runs" / name

    return run


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_every_answer_has_its_tokens_and_picture(trained, processes):
    folder = trained(processes, "[jsonl, traces]")
    rows = {(r["step"], r["group"], r["member"]): r for r in read_rows(folder / "rollouts.jsonl")}
    traces = list(read_rows(folder / "traces.jsonl"))
    pictures = {row["hash"] for row in read_rows(folder / "images.jsonl")}
    assert [(t["step"], t["group"]) for t in traces] == sorted({key[:2] for key in rows})
    for trace in traces:
        assert set(trace["pictures"]) <= pictures
        means = []
        for member, one in enumerate(trace["rollouts"]):
            row = rows[trace["step"], trace["group"], member]
            (span,) = one["spans"]
            ends = unpack_ends(span["ends"])
            assert len(ends) == row["length"]
            assert ends[-1] == len(row["reply"])
            assert all(v <= 0 for v in unpack(span["logprob"], len(ends)))
            assert "ref_logprob" in span
            means.append(statistics.fmean(unpack(span["advantage"], len(ends))))
        rewards = [rows[trace["step"], trace["group"], m]["reward"] for m in range(3)]
        # GRPO: advantages of a group add up to nothing, in the order of the rewards
        assert sum(means) == pytest.approx(0.0, abs=1e-3)
        assert sorted(range(3), key=rewards.__getitem__) == sorted(range(3), key=means.__getitem__)
    page = write_page(folder).read_text(encoding="utf-8")
    assert page.count('id="picture') == page.count('id="trace') == 1


@pytest.mark.slow
def test_traces_change_nothing_of_the_training(trained):
    whole, bare = trained(1, "[jsonl, traces]"), trained(1, "[jsonl]")
    assert (whole / "metrics.jsonl").read_bytes() == (bare / "metrics.jsonl").read_bytes()
    assert not (bare / "traces.jsonl").exists()
    settings = json.dumps((bare / "config.resolved.yaml").read_text())
    assert "traces" not in settings
