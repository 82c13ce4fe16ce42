"""The file of traces: each picture once, never more than its share of the disk."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from trainer.monitors.base import read_rows, truncate_after
from trainer.monitors.traces import Traces


def row(group: int, size: int = 100, picture: str | None = None):
    pictures = [{"hash": picture, "width": 1, "height": 1, "data": "x" * 50}] if picture else []
    return {"group": group, "pictures": pictures, "rollouts": [{"spans": [], "x": "y" * size}]}


def logged(folder, name="traces"):
    return [(one["step"], one.get("group")) for one in read_rows(folder / f"{name}.jsonl")]


async def test_a_picture_is_written_once(make_context, tmp_path):
    monitor = Traces()
    async with monitor.open(make_context(), {}):
        monitor.traces(1, [row(0, picture="p"), row(1, picture="q")])
        monitor.traces(2, [row(2, picture="p")])
    assert [one["hash"] for one in read_rows(tmp_path / "images.jsonl")] == ["p", "q"]
    assert [one["pictures"] for one in read_rows(tmp_path / "traces.jsonl")] == [
        ["p"],
        ["q"],
        ["p"],
    ]


async def test_the_disk_is_shared_evenly_among_the_steps(make_context, tmp_path):
    monitor = Traces(max_mb=0.003)
    async with monitor.open(make_context(total_steps=10), {}):
        for step in range(1, 11):
            monitor.traces(step, [row(8 * step + i, picture=f"{step}-{i}") for i in range(8)])
            size = sum((tmp_path / f"{n}.jsonl").stat().st_size for n in ("traces", "images"))
            assert size <= 300 * step
    steps = {step for step, _ in logged(tmp_path)}
    assert len(steps) >= 8
    assert max(steps) == 10
    named = {h for one in read_rows(tmp_path / "traces.jsonl") for h in one["pictures"]}
    assert named == {one["hash"] for one in read_rows(tmp_path / "images.jsonl")}


async def test_a_resumed_run_writes_cut_pictures_again(make_context, tmp_path):
    monitor = Traces()
    async with monitor.open(make_context(), {}):
        monitor.traces(1, [row(0, picture="p")])
        monitor.traces(2, [row(1, picture="q")])
    async with monitor.open(make_context(resuming=True), {}):
        truncate_after(tmp_path, 1)  # as the run does once it is open
        monitor.traces(2, [row(1, picture="q"), row(2, picture="p")])
    assert logged(tmp_path) == [(1, 0), (2, 1), (2, 2)]
    assert [one["hash"] for one in read_rows(tmp_path / "images.jsonl")] == ["p", "q"]
    async with monitor.open(make_context(), {}):
        monitor.traces(1, [row(0, picture="q")])
    assert logged(tmp_path) == [(1, 0)]
    assert [one["hash"] for one in read_rows(tmp_path / "images.jsonl")] == ["q"]


def test_switched_off_it_asks_for_nothing():
    assert Traces(groups=0).tracing is None
    assert Traces(max_mb=0).tracing is None
    assert Traces(every=5, groups=2).tracing.every == 5


@pytest.mark.parametrize("wrong", [{"every": 0}, {"groups": -1}, {"max_mb": -1}, {"image_side": 0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Traces(**wrong)
