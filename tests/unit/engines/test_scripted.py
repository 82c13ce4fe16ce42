from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from trainer.engines.base import Engine, Request, Sampling
from trainer.engines.scripted import Scripted
from trainer.errors import EngineError
from trainer.plugin import find


def request(context, text="1+1=", **sampling):
    return Request(context.renderer.encode(text), Sampling(**sampling), seed=3)


async def test_answers_come_one_after_the_other_with_the_end_of_turn(make_context):
    context = make_context("qwen2")
    engine = Scripted(answers=("yes", "no"), logprob=-0.25)
    async with engine.open(context):
        replies = [await engine.sample(request(context)) for _ in range(3)]
        await engine.load(iter([("w", None)]), version=4)
        later = await engine.sample(request(context))
        assert (engine.requests, engine.loads) == (4, 1)
    assert [context.renderer.decode(r.tokens) for r in replies] == ["yes", "no", "yes"]
    assert replies[0].tokens == [*context.renderer.encode("yes"), context.renderer.stop_ids[0]]
    assert replies[0].logprobs == [-0.25] * 4
    assert (replies[0].version, later.version) == ([0] * 4, [4] * 3)
    assert replies[0].finish == "stop"


async def test_answers_by_prompt(make_context):
    context = make_context("qwen2")
    engine = Scripted(by_prompt={"1+1": "2", "2+2": "4"})
    async with engine.open(context):
        reply = await engine.sample(request(context, "what is 2+2"))
        assert context.renderer.decode(reply.tokens) == "4"
        with pytest.raises(EngineError, match="no key occurs in the prompt 'other'"):
            await engine.sample(request(context, "other"))


async def test_a_function_answers(make_context, tmp_path, monkeypatch):
    (tmp_path / "my_script.py").write_text(
        "def answer(tokens, seed):\n    return f'{len(tokens)},{seed}'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    context = make_context("qwen2")
    engine = Scripted(function="my_script:answer")
    async with engine.open(context):
        reply = await engine.sample(request(context))
        assert context.renderer.decode(reply.tokens) == "4,3"


async def test_max_tokens_and_stop_strings_cut(make_context):
    context = make_context("qwen2")
    engine = Scripted(answers=("one two three",))
    async with engine.open(context):
        cut = await engine.sample(request(context, max_tokens=5))
        stopped = await engine.sample(request(context, stop=("three", "tw")))
    assert (context.renderer.decode(cut.tokens), cut.finish) == ("one t", "length")
    assert (context.renderer.decode(stopped.tokens), stopped.finish) == ("one tw", "stop")
    assert len(stopped.tokens) == 6


async def test_faults_on_request(make_context):
    context = make_context("qwen2")
    engine = Scripted(answers=("x",), fail_every=2, hang_every=3, delay=0.001)
    async with engine.open(context):
        await engine.sample(request(context))
        with pytest.raises(EngineError, match="request 2 fails"):
            await engine.sample(request(context))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.sample(request(context)), 0.05)
        assert await engine.logprobs([([1, 2, 3], {})]) == [[-0.5, -0.5]]
        assert await engine.health()
    assert not await engine.health()
    with pytest.raises(EngineError, match="not open"):
        await engine.sample(request(context))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give one of"),
        ({"answers": ["a"], "by_prompt": {"": "b"}}, "give one of"),
        ({"function": "no_such_module_here:f"}, "cannot import"),
        ({"function": "math:pi"}, "not a function"),
    ],
)
def test_bad_scripts_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        find(Engine, "scripted").model_validate(fields)
