"""Both vLLM engines, with the real vLLM: tokens, log-probs, versions, weights."""

from __future__ import annotations

import asyncio
import time

import pytest
import torch

from trainer.engines.base import Completion, Request, Sampling
from trainer.errors import EngineError, StaleWeights
from trainer.weights.in_process import InProcess


async def many(pair, n=32, sampling=None, first_seed=0):
    sampling = sampling or Sampling(max_tokens=24)
    requests = (Request(pair.prompt, sampling, seed=first_seed + i, order=(i,)) for i in range(n))
    return await asyncio.gather(*map(pair.engine.sample, requests))


def logits(pair, rows):
    """Plain transformers, on the policy's weights, banned ids left out."""
    model = pair.context.model.load(dtype="float32", attn_implementation="sdpa")
    model.load_state_dict(dict(pair.policy.weights()), strict=False)
    banned = list(pair.context.renderer.banned_ids)
    with torch.no_grad():
        found = [model(torch.tensor([row])).logits[0] for row in rows]
    for scores in found:
        scores[:, banned] = -torch.inf
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.7])
async def test_logprobs_are_those_of_the_policy(pair, temperature):
    pair.change(0.02)
    assert await pair.publish() < 1e-5
    replies = await many(pair, sampling=Sampling(max_tokens=24, temperature=temperature))
    rows = [[*pair.prompt, *reply.tokens] for reply in replies]
    start = len(pair.prompt)
    for reply, row, scores in zip(replies, rows, logits(pair, rows), strict=True):
        expected = (scores[start - 1 : -1] / temperature).log_softmax(-1)
        expected = expected.gather(-1, torch.tensor(row[start:])[:, None])[:, 0]
        assert (torch.tensor(reply.logprobs) - expected).abs().max() < 1e-5 / temperature
        assert reply.version == [pair.version] * len(reply.tokens)
    assert len({tuple(reply.tokens) for reply in replies}) > 8


async def test_a_seed_fixes_a_reply_whatever_else_runs(pair):
    await pair.publish()
    together = await many(pair, 8)
    alone = await pair.engine.sample(Request(pair.prompt, Sampling(max_tokens=24), seed=5))
    assert alone.tokens == together[5].tokens
    assert alone.logprobs == pytest.approx(together[5].logprobs, abs=1e-5)


async def test_how_replies_end(pair):
    renderer = pair.context.renderer
    await pair.publish()
    replies = await many(pair, 64, Sampling(max_tokens=60))
    ends = {reply.finish for reply in replies}
    assert ends == {"stop", "length"} or ends == {"stop"}
    for reply in replies:
        assert len(reply.tokens) == len(reply.logprobs) == len(reply.version)
        assert (reply.tokens[-1] in renderer.stop_ids) == (reply.finish == "stop")
        assert not set(reply.tokens) & set(renderer.banned_ids)
    (short,) = await many(pair, 1, Sampling(max_tokens=3))
    assert (short.finish, len(short.tokens)) == ("length", 3)
    cut = await many(pair, 8, Sampling(max_tokens=60, stop=("+",)))
    for reply in cut:
        text = renderer.decode(reply.tokens)
        if reply.finish == "stop" and reply.tokens[-1] not in renderer.stop_ids:
            assert text.endswith("+")
            assert text.count("+") == 1
    assert any(renderer.decode(reply.tokens).endswith("+") for reply in cut)


async def test_a_reply_ends_where_the_model_does(pair):
    await pair.publish()
    long = pair.prompt * 40
    (reply,) = await asyncio.gather(
        pair.engine.sample(Request(long, Sampling(max_tokens=200), seed=0))
    )
    assert len(long) + len(reply.tokens) <= 256
    with pytest.raises(EngineError, match=r"300 tokens: the engine takes 1 to 255"):
        await pair.engine.sample(Request(pair.prompt * 50, Sampling(), seed=0))
    with pytest.raises(EngineError, match="a prompt of 0 tokens"):
        await pair.engine.sample(Request([], Sampling(), seed=0))


async def test_greedy_beside_sampled_reports_temperature_one(pair):
    await pair.publish()
    greedy = Request(pair.prompt, Sampling(temperature=0, max_tokens=8), seed=0)
    reply, *_ = await asyncio.gather(pair.engine.sample(greedy), many(pair, 4))
    row = [*pair.prompt, *reply.tokens]
    (scores,) = logits(pair, [row])
    scores = scores[len(pair.prompt) - 1 : -1]
    assert scores.argmax(-1).tolist() == reply.tokens
    expected = scores.log_softmax(-1).amax(-1)
    assert reply.logprobs == pytest.approx(expected.tolist(), abs=1e-5)


async def test_a_banned_token_of_the_prompt_has_no_logprob(pair):
    await pair.publish()
    banned = pair.context.renderer.banned_ids[0]
    row = ([*pair.prompt, banned, *pair.prompt], {})
    (ours,), (theirs,) = pair.policy.probe([row]), await pair.engine.logprobs([row])
    assert theirs[len(pair.prompt) - 1] == float("-inf")
    assert theirs == pytest.approx(ours, abs=1e-5)


async def test_a_reply_goes_on_with_new_weights(pair):
    """Its tokens carry both versions, and each has the log-prob of the weights it names."""
    sampling = Sampling(max_tokens=240, temperature=2.0)
    requests = [Request(pair.prompt, sampling, seed=i, order=(i,)) for i in range(24)]
    replies: list[Completion] = []
    for part in (2, 3, 4, 6, 8):  # a busy machine may be fast now and slow then
        assert await pair.reset().publish() < 1e-5
        first = pair.version
        old = {name: weight.detach().clone() for name, weight in pair.policy.weights()}
        began = time.monotonic()
        await asyncio.gather(*map(pair.engine.sample, requests))
        took = time.monotonic() - began
        tasks = [asyncio.create_task(pair.engine.sample(request)) for request in requests]
        await asyncio.sleep(took / part)
        pair.change(0.02)
        assert await pair.publish() < 1e-5
        replies = [reply for reply in await asyncio.gather(*tasks) if len(set(reply.version)) > 1]
        if replies:
            break
    assert replies, "no reply was being written during the sync"
    rows = [[*pair.prompt, *reply.tokens] for reply in replies]
    new = logits(pair, rows)
    now = {name: weight.detach().clone() for name, weight in pair.policy.weights()}
    pair.policy.backbone.load_state_dict(old, strict=False)
    was = logits(pair, rows)
    pair.policy.backbone.load_state_dict(now, strict=False)
    start = len(pair.prompt)
    for reply, row, a, b in zip(replies, rows, was, new, strict=True):
        assert reply.version == sorted(reply.version)
        assert set(reply.version) == {first, first + 1}
        drawn_by_new = torch.tensor(reply.version) == first + 1
        scores = torch.where(drawn_by_new[:, None], b[start - 1 : -1], a[start - 1 : -1])
        expected = (scores / 2).log_softmax(-1).gather(-1, torch.tensor(row[start:])[:, None])
        assert (torch.tensor(reply.logprobs) - expected[:, 0]).abs().max() < 2e-5


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "model.layers.1.self_attn.k_proj.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.norm.weight",
    ],
)
async def test_a_stale_weight_is_caught_and_named(pair, name):
    await pair.publish()
    stale = [
        (n, w + 0.2 * torch.randn_like(w) if n == name else w) for n, w in pair.policy.weights()
    ]
    await pair.engine.load(iter(stale), pair.version)
    with pytest.raises(StaleWeights, match=rf"differs most is {name} \(by \d+% of"):
        await InProcess().prove(pair.policy, pair.engine, pair.version, pair.probe)


async def test_a_weight_that_does_not_come_is_named(pair):
    weights = [(n, w) for n, w in pair.policy.weights() if "layers.1.mlp.gate" not in n]
    with pytest.raises(EngineError, match=r"not sent, or only in part: model.layers.1.mlp.gate_up"):
        await pair.engine.load(iter(weights), pair.version)
    assert await pair.publish() < 1e-5


async def test_health_means_a_token(pair):
    assert await pair.engine.health()


async def test_a_tied_head_that_stays_behind_is_caught(local, monkeypatch):
    """What vLLM on a CPU does by itself: the head keeps a packed copy of the old embedding."""
    import trainer.vllm_adapter.worker

    await local.publish()
    with monkeypatch.context() as patch:
        patch.setattr(trainer.vllm_adapter.worker, "_refresh_packed", lambda model: None)
        local.change(0.02)
        with pytest.raises(StaleWeights, match=r"differs most is lm_head.weight"):
            await local.publish()
    assert await local.publish() < 1e-5
