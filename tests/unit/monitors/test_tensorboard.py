"""Event files that TensorBoard itself reads back."""

from __future__ import annotations

import sys

import pytest

from trainer.errors import MissingService
from trainer.monitors.tensorboard import Tensorboard


async def test_scalars_and_samples_are_there(make_context, make_table, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monitor = Tensorboard()
    async with monitor.open(make_context(), {}):
        monitor.evaluation(0, make_table(0, 0.25))
        monitor.log(1, {"reward/mean": 0.5, "note": "text"}, {"time/step": 2.0})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("reward/mean")] == [(1, 0.5)]
    assert [(e.step, e.value) for e in events.Scalars("evaluation/sampled_mean")] == [(0, 0.25)]
    assert "sample_0/text_summary" in events.Tags()["tensors"]


async def test_a_resumed_run_hides_what_it_logs_again(make_context, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for resuming, steps in ((False, (1, 2, 3)), (True, (3, 4))):
        monitor = Tensorboard()
        async with monitor.open(make_context(resuming=resuming), {}):
            for step in steps:
                monitor.log(step, {"reward/mean": float(resuming)}, {})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("reward/mean")] == [
        (1, 0.0),
        (2, 0.0),
        (3, 1.0),
        (4, 1.0),
    ]


async def test_a_new_run_shows_nothing_of_an_earlier_one(make_context, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps in ((1, 2, 3), (1,)):
        monitor = Tensorboard()
        async with monitor.open(make_context(), {}):
            for step in steps:
                monitor.log(step, {"reward/mean": len(steps)}, {})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("reward/mean")] == [(1, 1.0)]


async def test_missing_package(make_context, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingService, match="pip install tensorboard"):
        async with Tensorboard().open(make_context(), {}):
            pass
