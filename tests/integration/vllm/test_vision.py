"""Images through a real vLLM server, as patches that the renderer made."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from trainer.engines.base import Request, Sampling
from trainer.policies.base import Lora
from trainer.policies.vision_lm import VisionLM
from trainer.weights.vllm_transfer import VllmTransfer


@pytest.fixture
def ask():
    """`await ask(pair, n)`: (prompt, inputs, replies) of a group."""

    async def run(pair, n):
        row, inputs = pair.probe[0]
        prompt = row[:-24]  # without the probe's own tokens
        sampling = Sampling(max_tokens=12)
        requests = [Request(prompt, sampling, i, inputs=inputs, order=(i,)) for i in range(n)]
        return prompt, inputs, await asyncio.gather(*map(pair.engine.sample, requests))

    return run


async def test_logprobs_with_images_are_those_of_the_policy(seeing, ask):
    seeing.change(0.02)
    assert await seeing.publish() < 1e-5
    prompt, inputs, replies = await ask(seeing, 16)
    rows = [([*prompt, *reply.tokens], inputs) for reply in replies]
    for reply, scores in zip(replies, seeing.policy.probe(rows), strict=True):
        expected = scores[len(prompt) - 1 :]
        gaps = [abs(a - b) for a, b in zip(reply.logprobs, expected, strict=True)]
        assert max(gaps) < 1e-5
        assert not set(reply.tokens) & set(seeing.context.renderer.banned_ids)


async def test_the_image_matters(seeing):
    """Else equal log-probs would prove little."""
    await seeing.publish()
    row, inputs = seeing.probe[0]
    other = {**inputs, "pixel_values": inputs["pixel_values"].flip(0)}
    (seen,), (changed,) = (
        await seeing.engine.logprobs([(row, inputs)]),
        await seeing.engine.logprobs([(row, other)]),
    )
    assert max(abs(a - b) for a, b in zip(seen, changed, strict=True) if a != b) > 0.01


async def test_a_groups_images_are_packed_once(seeing, ask, monkeypatch):
    from trainer.vllm_adapter import images

    packed, encode = [], images.encode_mm_kwargs_item
    monkeypatch.setattr(
        images, "encode_mm_kwargs_item", lambda item: packed.append(item) or encode(item)
    )
    await seeing.publish()
    packed.clear()
    row, inputs = seeing.probe[0]
    group = {name: tensor.clone() for name, tensor in inputs.items()}
    await ask(replace(seeing, probe=[(row, group)]), 8)
    assert len(packed) == 1


async def test_an_adapter_on_what_sees_and_what_speaks(seeing, ask):
    """It travels alone; its part in the vision tower counts as well."""
    policy = VisionLM(lora=Lora(rank=4, alpha=8))
    async with policy.open(seeing.context):
        pair = replace(seeing, policy=policy, publisher=VllmTransfer())
        names = [name for name, _ in policy.adapter().weights()]
        assert any("visual" in name for name in names)
        assert any("language_model" in name for name in names)
        for _ in range(2):  # the second time what is cached of the image is that of the first
            pair.change(0.05)
            assert await pair.publish() < 1e-5
        prompt, inputs, replies = await ask(pair, 8)
        for reply in replies:
            (expected,) = policy.probe([([*prompt, *reply.tokens], inputs)])
            assert reply.logprobs == pytest.approx(expected[len(prompt) - 1 :], abs=1e-5)
            assert set(reply.version) == {pair.version}
    seeing.version = pair.version
    assert await seeing.publish() < 1e-5  # and whole weights again
