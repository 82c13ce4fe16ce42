"""The hf engine against plain transformers: same numbers, same tokens, whatever the batch."""

from __future__ import annotations

import asyncio

import pytest
import torch

from trainer.engines.base import Request, Sampling
from trainer.engines.hf import Hf
from trainer.errors import EngineError

ARCHITECTURES = ("qwen2", "qwen3", "gpt2", "qwen2_5_vl", "qwen3_vl")


def plain(context):
    return context.model.load(dtype="float32", attn_implementation="sdpa")


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "windowed"])
async def test_logprobs_are_those_of_a_plain_forward(
    architecture, temperature, make_context, prompts, requests_for, sample_all, plain_logprobs
):
    context = make_context(architecture)
    requests = requests_for(prompts(context), temperature=temperature)
    engine = Hf()
    async with engine.open(context):
        completions = await sample_all(engine, requests)
    model = plain(context)
    for request, completion in zip(requests, completions, strict=True):
        expected = plain_logprobs(model, request, completion, context.renderer.banned_ids)
        got = torch.tensor(completion.logprobs, dtype=torch.float64)
        assert (got - expected).abs().max() < 1e-5
    assert len({tuple(c.tokens) for c in completions}) > len(completions) // 2


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "windowed"])
async def test_greedy_is_transformers_greedy(
    architecture, make_context, prompts, requests_for, sample_all, plain_logprobs
):
    context = make_context(architecture)
    banned = context.renderer.banned_ids
    requests = requests_for(prompts(context), group_size=1, temperature=0)
    engine = Hf()
    async with engine.open(context):
        completions = await sample_all(engine, requests)
    model = plain(context)
    for request, completion in zip(requests, completions, strict=True):
        ids = torch.tensor([request.tokens])
        extra = {}
        if request.inputs:
            extra = {
                **request.inputs,
                "mm_token_type_ids": (ids == model.config.image_token_id).int(),
            }
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=20,
            suppress_tokens=list(banned),
            eos_token_id=list(context.renderer.stop_ids),
            pad_token_id=0,
            **extra,
        )
        assert completion.tokens == out[0, ids.shape[1] :].tolist()
        expected = plain_logprobs(model, request, completion, banned)  # at temperature 1
        assert torch.allclose(torch.tensor(completion.logprobs).double(), expected, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
async def test_shared_and_dynamic_cache_sample_the_same(
    architecture, make_context, prompts, requests_for, sample_all
):
    context = make_context(architecture)
    requests = requests_for(prompts(context), max_tokens=30)
    found = {}
    for cache in ("shared", "dynamic"):
        engine = Hf(cache=cache)
        async with engine.open(context):
            found[cache] = await sample_all(engine, requests)
    assert [c.tokens for c in found["shared"]] == [c.tokens for c in found["dynamic"]]
    for a, b in zip(found["shared"], found["dynamic"], strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
        assert a.finish == b.finish


@pytest.mark.parametrize("architecture", ["qwen2", "qwen2_5_vl", "windowed"])
async def test_a_sample_does_not_depend_on_its_company(
    architecture, make_context, prompts, requests_for, sample_all
):
    """Alone, in a batch, and in a batch whose other rows end at many different steps (so that
    finished rows are dropped again and again) a request gives the same reply."""
    context = make_context(architecture, stop_ids=[])
    requests = requests_for(prompts(context), max_tokens=90)
    company = [
        Request(r.tokens, Sampling(max_tokens=3 + 7 * i), r.seed + 77, r.inputs, (9, i))
        for i, r in enumerate(requests)
    ]
    engine = Hf()
    async with engine.open(context):
        together = await sample_all(engine, requests)
        mixed = await sample_all(engine, company + requests)
        alone = [await engine.sample(request) for request in requests[::4]]
        again = await sample_all(engine, requests[::-1])
    assert together == again[::-1]  # the same batch, bit for bit, whatever the order of arrival
    tokens = [c.tokens for c in together]
    assert all(len(t) == 90 for t in tokens)
    assert tokens == [c.tokens for c in mixed[len(company) :]]
    assert tokens[::4] == [c.tokens for c in alone]
    assert len({tuple(t) for t in tokens}) == len(tokens)


async def test_equal_tokens_with_other_images_are_not_shared(
    make_context, prompts, requests_for, sample_all
):
    context = make_context("qwen2_5_vl")
    tokens, inputs = prompts(context)[0]
    other = {**inputs, "pixel_values": inputs["pixel_values"].flip(0)}
    engine = Hf()
    async with engine.open(context):
        requests = requests_for([(tokens, inputs), (tokens, other)], group_size=1)
        one, two = await sample_all(engine, requests)
        assert one.logprobs[0] == pytest.approx((await engine.sample(requests[0])).logprobs[0])
        assert two.logprobs[0] == pytest.approx((await engine.sample(requests[1])).logprobs[0])
        rows = [(tokens + one.tokens[:1], inputs), (tokens + one.tokens[:1], other)]
        a, b = await engine.logprobs(rows)
    assert a[-1] == pytest.approx(one.logprobs[0], abs=1e-5)
    assert abs(a[-1] - b[-1]) > 1e-3


async def test_rows_of_one_batch_have_their_own_settings(make_context, prompts, sample_all):
    context = make_context("qwen2")
    tokens, _ = prompts(context)[0]
    settings = [
        Sampling(temperature=t, top_k=k, max_tokens=12) for t in (0, 0.5, 1.0) for k in (0, 1)
    ]
    requests = [Request(tokens, s, seed=5, order=(i,)) for i, s in enumerate(settings)]
    engine = Hf()
    async with engine.open(context):
        batch = await sample_all(engine, requests)
        alone = [await engine.sample(request) for request in requests]
    assert [c.tokens for c in batch] == [c.tokens for c in alone]
    greedy = batch[0].tokens
    assert batch[1].tokens == batch[3].tokens == batch[5].tokens == greedy  # top_k: 1
    assert batch[4].tokens != greedy
    assert batch[3].logprobs == [0.0] * len(greedy)  # of the distribution it was drawn from


async def test_banned_ids_are_never_sampled(make_context, prompts, requests_for, sample_all):
    context = make_context("qwen2")
    engine = Hf()
    async with engine.open(context):
        favourites = {
            token
            for c in await sample_all(engine, requests_for(prompts(context), temperature=0))
            for token in c.tokens
        }
    strict = make_context("qwen2", banned_ids=favourites)
    for cache in ("shared", "dynamic"):
        engine = Hf(cache=cache)
        async with engine.open(strict):
            for temperature in (0, 1.0):
                requests = requests_for(prompts(context), group_size=8, temperature=temperature)
                for completion in await sample_all(engine, requests):
                    assert not favourites & set(completion.tokens)


async def test_stop_ids_and_stop_strings_end_a_reply_and_are_kept(
    make_context, prompts, requests_for, sample_all
):
    free = make_context("qwen2", stop_ids=[])
    engine = Hf()
    async with engine.open(free):
        requests = requests_for(prompts(free), max_tokens=40)
        full = await sample_all(engine, requests)
        assert all(c.finish == "length" and len(c.tokens) == 40 for c in full)
        text = free.renderer.decode(full[0].tokens)
        stop = text[10:13]
        cut = await sample_all(engine, requests_for(prompts(free), max_tokens=40, stop=(stop,)))
    for whole, ended in zip(full, cut, strict=True):
        text = free.renderer.decode(whole.tokens)
        if stop in text:
            assert free.renderer.decode(ended.tokens) == text[: text.index(stop) + len(stop)]
            assert ended.finish == "stop"
        else:
            assert ended.tokens == whole.tokens
    assert cut[0].finish == "stop"
    token = full[0].tokens[7]
    async with (engine := Hf()).open(make_context("qwen2", stop_ids=[token])):
        ended = await engine.sample(requests[0])
    assert ended.tokens == full[0].tokens[: full[0].tokens.index(token) + 1]
    assert ended.finish == "stop"


async def test_short_replies_do_not_wait_for_long_ones(make_context, prompts):
    context = make_context("qwen2", stop_ids=[])
    tokens, _ = prompts(context)[0]
    engine = Hf()
    async with engine.open(context):
        long = asyncio.create_task(
            engine.sample(Request(tokens, Sampling(max_tokens=400), seed=1, order=(0,)))
        )
        short = await engine.sample(Request(tokens, Sampling(max_tokens=2), seed=2, order=(1,)))
        assert len(short.tokens) == 2
        assert not long.done()
        assert len((await long).tokens) == 400


async def test_more_requests_than_rows_are_served_in_order(
    make_context, prompts, requests_for, sample_all
):
    context = make_context("qwen2")
    requests = requests_for(prompts(context))
    ended = []

    async def one(engine, request):
        completion = await engine.sample(request)
        ended.append(request.order)
        return completion

    small, large = Hf(max_batch_rows=2), Hf()
    async with large.open(context):
        expected = await sample_all(large, requests)
    async with small.open(context):
        found = await asyncio.gather(*(one(small, r) for r in reversed(requests)))
    assert [c.tokens for c in reversed(found)] == [c.tokens for c in expected]
    batches = [sorted(ended[i : i + 2]) for i in range(0, len(ended), 2)]
    assert [order for batch in batches for order in batch] == [r.order for r in requests]


@pytest.mark.parametrize("architecture", ["qwen2", "qwen2_5_vl"])
@pytest.mark.parametrize("cache", ["shared", "dynamic"])
async def test_a_bad_request_fails_alone(
    architecture, cache, make_context, prompts, requests_for, sample_all
):
    context = make_context(architecture)
    good = requests_for(prompts(context), group_size=1)
    sampling = Sampling(max_tokens=5)
    too_long = Request([5] * 600, sampling, seed=0)
    empty = Request([], sampling, seed=0)
    unknown = Request([5, 10_000], sampling, seed=0)
    bad = [(too_long, "600 tokens"), (empty, "empty"), (unknown, "vocabulary")]
    if architecture == "qwen2_5_vl":
        tokens, inputs = prompts(context)[0]
        bad.append((Request(tokens[:4], sampling, 0, inputs), "placeholder"))
    engine = Hf(cache=cache)
    async with engine.open(context):
        expected = await sample_all(engine, good)
        results = await asyncio.gather(
            *(engine.sample(r) for r in good + [r for r, _ in bad]), return_exceptions=True
        )
    assert [c.tokens for c in results[: len(good)]] == [c.tokens for c in expected]
    for error, (_, text) in zip(results[len(good) :], bad, strict=True):
        assert isinstance(error, EngineError)
        assert text in str(error)


async def test_a_reply_ends_where_the_model_can_read_no_further(make_context, prompts, sample_all):
    """GPT-2 has a table of positions: rows that have ended must not run over its end while the
    others go on."""
    context = make_context("gpt2", stop_ids=[])
    (tokens, _), (longer, _), _ = prompts(context)
    sampling = Sampling(max_tokens=1000)
    for cache in ("shared", "dynamic"):
        engine = Hf(cache=cache)
        requests = [
            Request(t, sampling, seed=i, order=(i,)) for i, t in enumerate((tokens, longer))
        ]
        requests += [Request(tokens, sampling, seed=9 + i, order=(2, i)) for i in range(4)]
        async with engine.open(context):
            replies = await sample_all(engine, requests)
        assert [len(c.tokens) + len(r.tokens) for c, r in zip(replies, requests, strict=True)] == [
            256
        ] * len(requests)
        assert {c.finish for c in replies} == {"length"}


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "windowed"])
@pytest.mark.parametrize("cache", ["auto", "dynamic"])
async def test_teacher_forced_logprobs(
    architecture, cache, make_context, prompts, requests_for, sample_all
):
    context = make_context(architecture)
    banned = set(context.renderer.banned_ids)
    requests = requests_for(prompts(context), group_size=2)
    engine = Hf(cache=cache)
    async with engine.open(context):
        sampled = await sample_all(engine, requests)
        rows = [(r.tokens + c.tokens, r.inputs) for r, c in zip(requests, sampled, strict=True)]
        forced = await engine.logprobs([*rows, ([1], {})])
    assert forced.pop() == []
    for request, completion, row, logprobs in zip(requests, sampled, rows, forced, strict=True):
        assert len(logprobs) == len(row[0]) - 1
        assert logprobs[len(request.tokens) - 1 :] == pytest.approx(completion.logprobs, abs=1e-5)
        for token, logprob in zip(row[0][1:], logprobs, strict=True):
            assert (logprob == -torch.inf) == (token in banned)


async def test_new_weights_change_what_is_sampled_and_are_recorded(
    make_context, prompts, requests_for, sample_all, plain_logprobs
):
    context = make_context("qwen2_5_vl")
    requests = requests_for(prompts(context), group_size=1)
    model = plain(context)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    engine = Hf()
    async with engine.open(context):
        before = await sample_all(engine, requests)
        await engine.load(model.named_parameters(), version=7)
        after = await sample_all(engine, requests)
        assert await engine.health()
    assert {v for c in before for v in c.version} == {0}
    for request, completion in zip(requests, after, strict=True):
        assert completion.version == [7] * len(completion.tokens)
        expected = plain_logprobs(model, request, completion, context.renderer.banned_ids)
        got = torch.tensor(completion.logprobs).double()
        assert (got - expected).abs().max() < 1e-5
    assert before[0].logprobs != after[0].logprobs


async def test_weights_never_change_in_the_middle_of_a_batch(make_context, prompts):
    context = make_context("qwen2", stop_ids=[])
    tokens, _ = prompts(context)[0]
    first, second = (Request(tokens, Sampling(max_tokens=200), seed=1) for _ in range(2))
    engine = Hf()
    async with engine.open(context):
        alone = await engine.sample(first)
        weights = {n: torch.zeros_like(p) for n, p in plain(context).named_parameters()}
        sampling = asyncio.create_task(engine.sample(second))
        while not any(item.request is second for item in engine._live.running):
            await asyncio.sleep(0)
        await engine.load(weights.items(), version=1)
        assert sampling.done()
        assert (await sampling) == alone
        assert set((await engine.sample(first)).version) == {1}


async def test_load_names_the_weight_that_is_wrong(make_context, prompts):
    context = make_context("qwen2")
    weights = dict(plain(context).named_parameters())
    name = "model.layers.1.mlp.up_proj.weight"
    request = Request(prompts(context)[0][0], Sampling(max_tokens=3), seed=1)
    engine = Hf()
    async with engine.open(context):
        with pytest.raises(EngineError, match=r"'module\.x' does not exist"):
            await engine.load([("module.x", weights[name])], version=1)
        before = await engine.sample(request)  # nothing was copied yet
        with pytest.raises(EngineError, match=f"{name}' has shape"):
            await engine.load([(name, weights[name][:5])], version=1)
        with pytest.raises(EngineError, match=f"1 weight.*{name}"):
            await engine.load([(n, w) for n, w in weights.items() if n != name], version=1)
        with pytest.raises(EngineError, match="not whole"):
            await engine.sample(request)
        assert not await engine.health()
        await engine.load(weights.items(), version=2)
        after = await engine.sample(request)
        assert after.tokens == before.tokens
        assert set(after.version) == {2}
        del weights["model.embed_tokens.weight"]  # tied: either name will do
        await engine.load([*weights.items(), ("lm_head.weight", torch.zeros(102, 96))], version=3)
        assert (await engine.sample(request)).logprobs[0] == pytest.approx(
            -torch.tensor(101.0).log().item()  # uniform over all but the padding token
        )


async def test_diverged_weights_are_an_error_not_a_sample(make_context, prompts):
    context = make_context("qwen2")
    weights = {n: p.data.clone() for n, p in plain(context).named_parameters()}
    weights["model.norm.weight"][3] = torch.nan
    engine = Hf()
    async with engine.open(context):
        await engine.load(weights.items(), version=4)
        with pytest.raises(EngineError, match=r"not finite.*version 4"):
            await engine.sample(Request(prompts(context)[0][0], Sampling(), seed=1))
        assert not await engine.health()


async def test_a_cancelled_request_stops_being_computed(make_context, prompts):
    context = make_context("qwen2", stop_ids=[])
    tokens, _ = prompts(context)[0]
    engine = Hf()
    async with engine.open(context):
        task = asyncio.create_task(engine.sample(Request(tokens, Sampling(max_tokens=480), 1)))
        while not (engine._live.running and engine._live.running[0].row):
            await asyncio.sleep(0.001)
        row = engine._live.running[0].row
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len((await engine.sample(Request(tokens, Sampling(max_tokens=2), 1))).tokens) == 2
        assert row.finish == "abort"
        assert len(row.tokens) < 480


async def test_closing_ends_what_is_running(make_context, prompts):
    context = make_context("qwen2", stop_ids=[])
    tokens, _ = prompts(context)[0]
    engine = Hf(max_batch_rows=1)
    async with engine.open(context):
        tasks = [
            asyncio.create_task(engine.sample(Request(tokens, Sampling(max_tokens=480), seed)))
            for seed in range(2)
        ]
        await asyncio.sleep(0.02)
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, EngineError)
        assert "closed" in str(result)
    with pytest.raises(EngineError, match="not open"):
        await engine.sample(Request(tokens, Sampling(), seed=0))


async def test_sampling_leaves_torchs_generator_alone(
    make_context, prompts, requests_for, sample_all
):
    context = make_context("qwen2")
    engine = Hf()
    async with engine.open(context):
        torch.manual_seed(1)
        state = torch.get_rng_state()
        one = await sample_all(engine, requests_for(prompts(context)))
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        assert await sample_all(engine, requests_for(prompts(context))) == one
        assert await sample_all(engine, requests_for(prompts(context), seed=50)) != one
        assert engine.precision == "float32"


async def test_bfloat16_is_close(make_context, prompts, requests_for, sample_all, plain_logprobs):
    context = make_context("qwen2")
    requests = requests_for(prompts(context))
    engine = Hf(dtype="bfloat16")
    async with engine.open(context):
        assert engine.precision == "bfloat16"
        completions = await sample_all(engine, requests)
    model = plain(context)
    gaps = [
        (torch.tensor(c.logprobs) - plain_logprobs(model, r, c, context.renderer.banned_ids)).abs()
        for r, c in zip(requests, completions, strict=True)
    ]
    assert torch.cat(gaps).mean() < 0.05


async def test_shared_is_refused_for_a_model_with_windows(make_context):
    engine = Hf(cache="shared")
    with pytest.raises(EngineError, match="Qwen2ForCausalLM"):
        async with engine.open(make_context("windowed")):
            pass
