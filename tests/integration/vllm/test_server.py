"""What only servers do: they learn through the whole loop, and are killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import psutil

from trainer.engines.base import Request, Sampling
from trainer.loop import train
from trainer.yaml import load_recipe

ROOT = Path(__file__).parents[3]


def processes(pair):
    """The server and its engine, below the guard."""
    guard = psutil.Process(pair.engine.fleet.members[0].process.pid)
    return guard.children(recursive=True)


async def all_back(pair):
    until = time.monotonic() + 900
    while len(pair.engine.fleet.ready) < len(pair.engine.fleet.members):
        assert time.monotonic() < until, pair.engine.fleet.faults
        await asyncio.sleep(0.1)


async def test_grpo_learns_through_a_server(served, tmp_path, monkeypatch):
    """The recipe of the README; the server is reached as any server on another node."""
    monkeypatch.chdir(ROOT)
    url = served.engine.fleet.members[0].url
    (recipe,) = load_recipe(
        "recipes/quickstart_text.yaml",
        overrides=[
            f"engine={{type: vllm_server, urls: ['{url}']}}",
            f"output={tmp_path}",
            "steps=16",
            "rollouts.groups_per_step=16",
            "evaluation.limit=50",
            "monitors=[jsonl]",
        ],
    )
    async with served.engine.fleet.alone():  # a server follows one trainer at a time
        await train(recipe)
    lines = (next(tmp_path.rglob("metrics.jsonl"))).read_text().splitlines()
    reports = [json.loads(line) for line in lines]
    rewards = [r["reward/mean"] for r in reports if "reward/mean" in r]
    assert sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 0.1, rewards
    assert all(r["sync/probe_gap"] < 1e-5 for r in reports if "sync/probe_gap" in r)


async def test_killed_in_the_middle_of_replies(served):
    """Each reply arrives, the same as without the fault; the server comes back with the weights."""
    await served.publish()
    sampling = Sampling(max_tokens=200, temperature=2.0)
    requests = [Request(served.prompt, sampling, seed=i, order=(i,)) for i in range(16)]
    (member,) = served.engine.fleet.members
    for part in (2, 3, 4, 6, 8):  # a busy machine may be fast now and slow then
        began = time.monotonic()
        expected = await asyncio.gather(*map(served.engine.sample, requests))
        took = time.monotonic() - began
        tasks = [asyncio.create_task(served.engine.sample(request)) for request in requests]
        server, *engines = processes(served)
        await asyncio.sleep(took / part)
        if member.calls:
            break
        await asyncio.gather(*tasks)
    assert member.calls
    os.kill(server.pid, signal.SIGKILL)
    replies = await asyncio.gather(*tasks)
    assert [r.tokens for r in replies] == [r.tokens for r in expected]
    assert {v for r in replies for v in r.version} == {served.version}
    await all_back(served)
    assert engines
    assert not any(map(psutil.Process.is_running, (server, *engines)))
    assert "ended with signal SIGKILL" in member.reason
    served.change(0.02)
    assert await served.publish() < 1e-5


async def test_one_that_hangs_is_replaced(served, monkeypatch):
    await served.publish()
    fleet = served.engine.fleet
    known = len(fleet.faults)
    request = Request(served.prompt, Sampling(max_tokens=4), seed=0)
    with monkeypatch.context() as patch:  # the one that replaces it may take its time
        patch.setattr(fleet, "deadlines", replace(fleet.deadlines, health=5))
        for process in processes(served):
            process.suspend()
        task = asyncio.create_task(served.engine.sample(request))
        while len(fleet.faults) == known:
            await asyncio.sleep(0.1)
    assert "health: /inference/v1/generate: no answer within 5 s" in fleet.faults[known]
    assert len((await task).tokens) > 0
    await all_back(served)
