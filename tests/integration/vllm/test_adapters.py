"""Only the adapter travels, under a new name each time: both vLLM engines, with the real vLLM."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from functools import partial

import psutil
import pytest
import torch

from trainer.engines.base import Completion, Request, Sampling
from trainer.engines.vllm_server import VllmServer
from trainer.errors import ConfigError, EngineError, StaleWeights
from trainer.ops.adapters import Adapter


@pytest.fixture
def pair(adapted):
    return adapted


def adapters(pair) -> list[str]:
    """Names of those that the engine has."""
    live = pair.engine._live
    if isinstance(pair.engine, VllmServer):
        return [loaded.name for loaded in live.weights._adapters]
    return [request.lora_name for request in live.local._adapters]


async def test_base_once_then_adapters_alone(pair, monkeypatch):
    sent = []
    load = type(pair.engine).load

    async def counted(self, weights, version):
        sent.append(version)
        await load(self, weights, version)

    monkeypatch.setattr(type(pair.engine), "load", counted)
    seen = []
    for _ in range(3):
        pair.change(0.05)
        assert await pair.publish() < 1e-5
        seen += adapters(pair)
        (scores,) = await pair.engine.logprobs(pair.probe[:1])
        merged = pair.policy.probe(pair.probe[:1])[0]
        with pair.policy.without_adapter():
            bare = pair.policy.probe(pair.probe[:1])[0]
        assert scores == pytest.approx(merged, abs=1e-5)
        assert max(abs(a - b) for a, b in zip(scores, bare, strict=True)) > 0.01
    assert len(set(seen)) == len(seen) == 3  # one at a time, each under a name of its own
    assert len(sent) <= 1  # the base, by the first test only
    reply = await pair.engine.sample(Request(pair.prompt, Sampling(max_tokens=9), seed=0))
    assert set(reply.version) == {pair.version}


async def test_a_reply_ends_with_the_adapter_it_began_with(pair):
    sampling = Sampling(max_tokens=240, temperature=2.0)
    requests = [Request(pair.prompt, sampling, seed=i, order=(i,)) for i in range(24)]
    replies: list[Completion] = []
    kept: list[str] = []
    for part in (2, 3, 4, 6, 8):  # a busy machine may be fast now and slow then
        pair.reset().change(0.05)
        assert await pair.publish() < 1e-5
        first = pair.version
        began = time.monotonic()
        expected = await asyncio.gather(*map(pair.engine.sample, requests))
        took = time.monotonic() - began
        tasks = [asyncio.create_task(pair.engine.sample(request)) for request in requests]
        await asyncio.sleep(took / part)
        pair.change(0.05)
        assert await pair.publish() < 1e-5
        kept = adapters(pair)
        replies = await asyncio.gather(*tasks)
        if len(kept) == 2:
            break
    assert len(kept) == 2, "no reply was being written during the sync"
    assert [reply.tokens for reply in replies] == [reply.tokens for reply in expected]
    assert {version for reply in replies for version in reply.version} == {first}
    await pair.publish()
    assert not set(kept) & set(adapters(pair))  # those nobody reads any more are unloaded


async def test_a_stale_adapter_is_caught(pair, monkeypatch):
    pair.change(0.05)
    await pair.publish()
    right = pair.policy.adapter()

    def stale(adapter):
        for name, weight in adapter.weights():
            yield (
                name,
                torch.zeros_like(weight) if name.endswith("v_proj.lora_B.weight") else weight,
            )

    wrong = Adapter(right.rank, right.alpha, partial(stale, right))
    with monkeypatch.context() as patch:
        patch.setattr(type(pair.policy), "adapter", lambda self: wrong)
        with pytest.raises(StaleWeights, match="The engine cannot say which weight it is"):
            await pair.publish()
    assert await pair.publish() < 1e-5


async def test_a_rank_that_does_not_fit(pair, monkeypatch):
    big = Adapter(64, 8, lambda: iter(()))
    monkeypatch.setattr(type(pair.policy), "adapter", lambda self: big)
    with pytest.raises(ConfigError, match=r"policy.lora.rank: 64 is above engine.max_lora_rank 4"):
        await pair.publish()


async def test_layers_that_vllm_does_not_have(pair, monkeypatch):
    odd = Adapter(4, 8, lambda: iter([("model.layers.0.odd.lora_A.weight", torch.ones(4, 96))]))
    with monkeypatch.context() as patch:
        patch.setattr(type(pair.policy), "adapter", lambda self: odd)
        with pytest.raises(EngineError, match="odd"):
            await pair.publish()
    assert await pair.publish() < 1e-5


async def test_a_server_that_comes_back_has_the_adapter(pair):
    if not isinstance(pair.engine, VllmServer):
        pytest.skip("an engine in this process does not come back")
    pair.change(0.05)
    assert await pair.publish() < 1e-5
    fleet = pair.engine.fleet
    guard = psutil.Process(fleet.members[0].process.pid)
    os.kill(guard.children(recursive=True)[-1].pid, signal.SIGKILL)
    while fleet.ready:
        await asyncio.sleep(0.05)
    (scores,) = await pair.engine.logprobs(pair.probe[:1])
    assert scores == pytest.approx(pair.policy.probe(pair.probe[:1])[0], abs=1e-5)
