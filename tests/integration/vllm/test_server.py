"""What only servers do: they learn through the whole loop, and are killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
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


async def all_back(pair, seconds):
    until = time.monotonic() + seconds
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
    expected = await asyncio.gather(*map(served.engine.sample, requests))
    tasks = [asyncio.create_task(served.engine.sample(request)) for request in requests]
    await asyncio.sleep(0.05)
    assert not all(task.done() for task in tasks)
    server, *engines = processes(served)
    os.kill(server.pid, signal.SIGKILL)
    replies = await asyncio.gather(*tasks)
    assert [r.tokens for r in replies] == [r.tokens for r in expected]
    assert {v for r in replies for v in r.version} == {served.version}
    await all_back(served, 60)
    assert engines
    assert not any(map(psutil.Process.is_running, (server, *engines)))
    assert "ended with signal SIGKILL" in served.engine.fleet.members[0].reason
    served.change(0.02)
    assert await served.publish() < 1e-5


async def test_one_that_hangs_is_replaced(served):
    await served.publish()
    for process in processes(served):
        process.suspend()
    reply = await served.engine.sample(Request(served.prompt, Sampling(max_tokens=4), seed=0))
    assert len(reply.tokens) > 0
    await all_back(served, 60)
    assert "health: /inference/v1/generate: no answer" in served.engine.fleet.faults[-1]
