"""Images through a real vLLM server, as patches that the renderer made."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.engines.base import Request, Sampling
from trainer.ops.member import MemberFault
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


async def test_logprobs_with_images_in_the_trainers_process(tmp_path):
    here = Path(__file__).parent
    command = [sys.executable, here / "in_process_images.py", tmp_path]
    path = os.pathsep.join(map(str, (here, here.parents[2])))
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 1e-5


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


@pytest.fixture
def sent(seeing, monkeypatch):
    """The images in each request that goes out from now on: their data, None where only named."""
    requests, client = [], type(seeing.engine.fleet.members[0].client)
    request = client.request

    def watched(self, method, path, **more):
        if "features" in (more.get("json") or {}):
            requests.append(more["json"]["features"]["kwargs_data"]["image"])
        return request(self, method, path, **more)

    monkeypatch.setattr(client, "request", watched)
    return requests


def of_a_group_of_its_own(pair):
    row, inputs = pair.probe[0]
    return replace(pair, probe=[(row, {name: tensor.clone() for name, tensor in inputs.items()})])


async def test_a_groups_images_travel_once(seeing, ask, sent):
    await seeing.publish()
    sent.clear()
    group = of_a_group_of_its_own(seeing)
    _, _, replies = await ask(group, 8)
    first, *others = sent
    assert len(first) == 1
    assert first[0]
    assert others == [[None]] * 8
    _, _, again = await ask(group, 8)
    assert sent[9:] == [[None]] * 8
    assert [reply.tokens for reply in again] == [reply.tokens for reply in replies]


async def test_images_that_a_server_dropped_are_sent_again(seeing, ask, sent):
    """Or a server that was started anew under the same address."""
    await seeing.publish()
    group, member = of_a_group_of_its_own(seeing), seeing.engine.fleet.members[0]
    _, _, replies = await ask(group, 2)
    await member.control("/reset_mm_cache", deadline=60)
    sent.clear()
    _, _, again = await ask(group, 2)
    assert [reply.tokens for reply in again] == [reply.tokens for reply in replies]
    assert [data for (data,) in sent].count(None) == 2
    assert any(data for (data,) in sent)
    assert member.ready
    assert not seeing.engine.fleet.faults


async def test_who_fails_to_bring_them_leaves_it_to_the_next(seeing):
    images = seeing.engine._images(of_a_group_of_its_own(seeing).probe[0][1])
    came = []

    async def send():
        await asyncio.sleep(0)
        came.append(len(came))
        if len(came) == 1:
            raise MemberFault("no answer")

    bringing = (images.bring("server", send) for _ in range(4))
    results = await asyncio.gather(*bringing, return_exceptions=True)
    assert [type(result) for result in results] == [MemberFault] + [type(None)] * 3
    assert len(came) == 2
    await images.bring("another", send)
    assert len(came) == 3


async def test_what_is_packed_goes_with_its_pixels(seeing):
    group = of_a_group_of_its_own(seeing)
    seeing.engine._images(group.probe[0][1])
    known = seeing.engine._live.packer._known
    before = len(known)
    del group
    gc.collect()
    assert len(known) == before - 1


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
