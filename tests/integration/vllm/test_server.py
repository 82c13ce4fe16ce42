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
import pytest
from pydantic import PrivateAttr

from trainer.ahead import scoring_ahead
from trainer.config import Scoring
from trainer.engines import vllm_server
from trainer.engines.base import Request, Sampling
from trainer.engines.vllm_server import VllmServer
from trainer.errors import EngineError
from trainer.loop import train
from trainer.ops import claims
from trainer.rewards.base import Reward, RewardContext
from trainer.rollouts.single_turn import SingleTurn
from trainer.scoring import Scorer
from trainer.types import Group, Prompt, Score
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


class Noted(Reward):
    """Notes when which member was scored."""

    pointwise = True
    _when: dict[int | None, float] = PrivateAttr(default_factory=dict)

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        self._when |= {rollout.member: time.monotonic() for rollout in group.rollouts}
        return [Score(0.0) for _ in group.rollouts]


async def test_answers_are_scored_while_others_of_their_group_are_written(served, monkeypatch):
    sample, written = VllmServer.sample, {}

    async def of_two_lengths(self, request):
        member = request.order[1]
        sampling = Sampling(max_tokens=200 if member == 3 else 1)
        completion = await sample(self, replace(request, sampling=sampling))
        written[member] = time.monotonic()
        return completion

    monkeypatch.setattr(VllmServer, "sample", of_two_lengths)
    arguments_of = vllm_server.sampling_arguments
    monkeypatch.setattr(
        vllm_server,
        "sampling_arguments",
        lambda *given, **more: arguments_of(*given, **more) | {"stop_token_ids": []},
    )
    prompt = Prompt("p", ({"role": "user", "content": "1+2+3="},))
    reward, arguments = Noted(), (served.engine, served.context.renderer, Sampling())
    async with (
        Scorer.open(reward, Scoring(workers=1), seed=0, total_steps=1) as scorer,
        scoring_ahead(scorer, prompt, lambda: 1) as ahead,
    ):
        play = SingleTurn().play
        group = await play(prompt, *arguments, group_size=4, seed=0, finished=ahead.finished)
        await ahead.score(group)
    *short, long = (len(rollout.completion) for rollout in group.rollouts)
    assert short == [1, 1, 1]
    assert long == 200
    assert max(reward._when[member] for member in range(3)) < written[3] <= reward._when[3]


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


async def test_engines_do_not_outlive_the_guard(served):
    """It and the trainer may be killed at once: then only the kernel is left to end them."""
    guard = psutil.Process(served.engine.fleet.members[0].process.pid)
    below = guard.children(recursive=True)
    assert len(below) >= 2
    guard.kill()
    until = time.monotonic() + 120
    # No await: the trainer cannot do anything about it.
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in below):
        assert time.monotonic() < until, "a process of vLLM outlived its guard"
        time.sleep(0.1)
    await all_back(served)


async def test_two_trainers_on_one_server(served, monkeypatch):
    monkeypatch.setattr(claims, "LEASE_SECONDS", 10.0)
    monkeypatch.setattr(claims, "EVERY_SECONDS", 0.5)
    url = served.engine.fleet.members[0].url
    first, second = VllmServer(urls=(url,)), VllmServer(urls=(url,))
    async with served.engine.fleet.alone():  # its own trainer stands back
        async with first.open(served.context):
            with pytest.raises(
                EngineError, match=r"follows another trainer: process \d+ on .* ago"
            ):
                async with second.open(served.context):
                    pass
            assert await first.health()
        async with second.open(served.context):  # it is free now
            assert await second.health()


async def test_what_a_dead_trainer_claimed_is_free_after_a_while(served, monkeypatch):
    monkeypatch.setattr(claims, "LEASE_SECONDS", 3.0)
    (member,) = served.engine.fleet.members
    rpc = served.engine._live.weights.rpc
    dead, other = claims.Claim(rpc), claims.Claim(rpc)
    await dead.take(member)
    began = time.monotonic()
    await other.take(member)
    assert time.monotonic() - began > 1
    async with other.kept([member]):
        assert other._owner in await dead._say(member)
    assert await dead._say(member) == ""


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


async def test_one_that_freezes_in_a_sync_holds_it_up_for_seconds(served, monkeypatch):
    """Its front end is well, its engine is not; what comes back has the weights of that sync."""
    await served.publish()
    fleet = served.engine.fleet
    known = len(fleet.faults)
    with monkeypatch.context() as patch:
        patch.setattr(fleet, "deadlines", replace(fleet.deadlines, stall=5))
        async with fleet.alone():  # no health check finds out before the sync does
            processes(served)[-1].suspend()
        served.change(0.02)
        began = time.monotonic()
        task = asyncio.create_task(served.publish())
        while len(fleet.faults) == known:
            await asyncio.sleep(0.1)
        assert time.monotonic() - began < 60  # `control_deadline` is 300
    assert "no answer, and it computed nothing for" in fleet.faults[known]
    assert await task < 1e-5
    await all_back(served)
