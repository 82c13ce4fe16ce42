"""Images through a real vLLM server, as patches that the renderer made."""

from __future__ import annotations

import asyncio

from trainer.engines.base import Request, Sampling


async def test_logprobs_with_images_are_those_of_the_policy(seeing):
    seeing.change(0.02)
    assert await seeing.publish() < 1e-5
    row, inputs = seeing.probe[0]
    prompt = row[:-24]  # without the probe's own tokens
    sampling = Sampling(max_tokens=12)
    requests = [Request(prompt, sampling, i, inputs=inputs, order=(i,)) for i in range(16)]
    replies = await asyncio.gather(*map(seeing.engine.sample, requests))
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
