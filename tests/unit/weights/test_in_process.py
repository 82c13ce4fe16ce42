"""A real policy and a real engine: the sync brings the weights over, the probe sees when not."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import torch

from trainer.engines.base import Engine
from trainer.errors import StaleWeights
from trainer.models.base import Model
from trainer.plugin import find
from trainer.policies.base import Policy
from trainer.weights.base import Publisher, probe_rows


@pytest.fixture(params=["text", "vision"])
async def live(request, make_context):
    """(policy, engine, probe) of one tiny model; for vision the probe holds an image."""
    kind, name = (
        ("causal_lm", "tiny_text") if request.param == "text" else ("vision_lm", "tiny_vision")
    )
    model = find(Model, name)()
    renderer = model.renderer()
    context = make_context(model, renderer)
    policy, engine = find(Policy, kind)(), find(Engine, "hf")()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(policy.open(context))
        await stack.enter_async_context(engine.open(context))
        yield policy, engine, probe_rows(_prompt(request.param, renderer), policy.vocabulary, ())


def _prompt(kind, renderer):
    if kind == "text":
        return renderer.render(({"role": "user", "content": "3+4+5="},))
    from PIL import Image

    image = Image.new("RGB", (84, 84), (200, 30, 30))
    parts = [
        {"type": "image", "image": image},
        {"type": "text", "text": "where is the red square ?"},
    ]
    return renderer.render(({"role": "user", "content": parts},))


@pytest.fixture
def publisher():
    return find(Publisher, "in_process")()


def _change(policy):
    with torch.no_grad():
        for parameter in policy.module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)


async def test_new_weights_arrive_and_are_proved(live, publisher):
    policy, engine, probe = live
    before = await engine.logprobs(probe)
    _change(policy)
    report = await publisher.publish(policy, engine, 1, probe)
    assert report["sync/probe_gap"] < 1e-5
    assert await engine.logprobs(probe) != before


@pytest.mark.parametrize("stale", ["embed_tokens", "layers.1.mlp", "norm"])
async def test_one_stale_tensor_is_seen(live, publisher, stale):
    policy, engine, probe = live
    await publisher.publish(policy, engine, 0, probe)
    kept = {
        name: t.clone() for name, t in policy.weights() if stale in name and "visual" not in name
    }
    _change(policy)
    mixed = [(name, kept.get(name, tensor)) for name, tensor in policy.weights()]
    await engine.load(mixed, 1)
    with pytest.raises(StaleWeights, match="version 1"):
        await publisher.prove(policy, engine, 1, probe)


async def test_a_stale_vision_tower_is_seen(live, publisher):
    policy, engine, probe = live
    kept = {name: t.clone() for name, t in policy.weights() if "visual" in name}
    if not kept:
        pytest.skip("a text model has no vision tower")
    _change(policy)
    await engine.load([(n, kept.get(n, t)) for n, t in policy.weights()], 1)
    with pytest.raises(StaleWeights):
        await publisher.prove(policy, engine, 1, probe)


async def test_tolerance_is_a_setting(live):
    policy, engine, probe = live
    publisher = find(Publisher, "in_process")(tolerance=1e9)
    _change(policy)
    assert await publisher.prove(policy, engine, 0, probe) > 0.01


def test_the_probe_spreads_over_the_vocabulary_without_banned_ids():
    from trainer.renderer import Rendered

    with_prompt, alone = probe_rows(Rendered([7, 8], {"x": 1}), 100, banned={0, 4}, n=24)
    assert with_prompt[0][:2] == [7, 8]
    assert with_prompt[1] == {"x": 1}
    assert len(alone[0]) == 24
    assert max(alone[0]) > 90
    assert not {0, 4} & set(alone[0])
