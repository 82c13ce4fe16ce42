"""Rows on the disk: what they hold, that equal runs give equal bytes, what a resume keeps."""

from __future__ import annotations

from trainer.monitors.base import read_rows, truncate_after
from trainer.monitors.jsonl import Jsonl


async def test_metrics_are_only_what_the_recipe_decides(make_context, tmp_path):
    monitor = Jsonl()
    async with monitor.open(make_context(), {}):
        monitor.log(1, {"train/loss": 0.1 + 0.2, "reward/mean": 1.0}, {"time/step": 0.5})
        monitor.log(
            2, {"reward/mean": float("nan"), "train/loss": float("inf")}, {"time/step": 0.6}
        )
        # on the disk already, while the run is still going on
        assert (tmp_path / "metrics.jsonl").read_text() == (
            '{"reward/mean": 1.0, "step": 1, "train/loss": 0.30000000000000004}\n'
            '{"reward/mean": null, "step": 2, "train/loss": null}\n'
        )
    assert list(read_rows(tmp_path / "timings.jsonl")) == [
        {"step": 1, "time/step": 0.5},
        {"step": 2, "time/step": 0.6},
    ]


async def test_rollout_rows(make_context, tmp_path, group):
    monitor = Jsonl()
    async with monitor.open(make_context(), {}):
        monitor.rollouts(1, [group])
    first, second = read_rows(tmp_path / "rollouts.jsonl")
    assert first == {
        "step": 1,
        "group": 7,
        "member": 0,
        "id": "p7",
        "task": None,
        "prompt": "[image] where ?",
        "answer": [1, 2],
        "reply": "[1,2]",
        "reward": 0.5,
        "parts": {"iou": 0.5},
        "status": "ok",
        "scored": "ok",
        "length": 2,
    }
    assert (second["reward"], second["scored"], second["status"]) == (None, "raised", "truncated")
    assert second["reason"] == "ValueError: no box"
    assert second["length"] == 4
    assert [(turn["author"], turn["text"]) for turn in second["turns"]] == [
        ("policy", "a"),
        ("tool", "t"),
        ("policy", "b"),
    ]


async def test_rollouts_every(make_context, tmp_path, group):
    monitor = Jsonl(rollouts_every=2)
    async with monitor.open(make_context(), {}):
        for step in (1, 2, 3, 4):
            monitor.rollouts(step, [group])
    assert {row["step"] for row in read_rows(tmp_path / "rollouts.jsonl")} == {2, 4}


async def test_a_resumed_run_appends_and_a_new_one_starts_over(make_context, make_table, tmp_path):
    async def run(steps, resuming):
        monitor = Jsonl()
        async with monitor.open(make_context(resuming=resuming), {}):
            truncate_after(tmp_path, steps[0] - 1)  # as the run does once it is open
            for step in steps:
                monitor.log(step, {"train/loss": 1.0}, {})
                monitor.evaluation(step, make_table(step, 0.5))

    def logged(name):
        return [row["step"] for row in read_rows(tmp_path / name)]

    await run([1, 2, 3], resuming=False)
    await run([3, 4], resuming=True)
    assert logged("metrics.jsonl") == logged("evaluations.jsonl") == [1, 2, 3, 4]
    await run([1], resuming=False)
    assert logged("metrics.jsonl") == logged("evaluations.jsonl") == [1]
