"""An offline run is written into the run folder."""

from __future__ import annotations

import sys

import pytest

from trainer.errors import MissingService
from trainer.monitors.wandb import Wandb


async def test_offline_run(make_context, make_table, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monitor = Wandb(mode="offline")
    async with monitor.open(make_context(), {"name": "demo"}):
        identity = (tmp_path / "wandb_id").read_text()
        monitor.evaluation(0, make_table(0, 0.25))
        monitor.log(1, {"reward/mean": 0.5}, {"time/step": 2.0})
        monitor.evaluation(2, make_table(2, 0.75))
        monitor.log(2, {"reward/mean": 0.6}, {"time/step": 2.0})
        assert monitor._run.summary["reward/mean"] == 0.6
        assert monitor._run.summary["evaluation/sampled_mean"] == 0.75
    (written,) = (tmp_path / "wandb").glob(f"offline-run-*-{identity}/*.wandb")
    assert written.stat().st_size > 0


async def test_a_resumed_run_keeps_its_id(make_context, tmp_path):
    identities = []
    for resuming in (False, True, False):
        async with Wandb(mode="disabled").open(make_context(resuming=resuming), {}):
            identities.append((tmp_path / "wandb_id").read_text())
    assert identities[0] == identities[1] != identities[2]


async def test_missing_package(make_context, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingService, match="pip install wandb"):
        async with Wandb().open(make_context(), {}):
            pass
