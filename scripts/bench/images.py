"""What it costs to bring a group's images to a vLLM server: once and then by name, as the engine
does, against with each of its requests. In one run, turn about, with a tiny vision model that gets
images of a real size.

    python scripts/bench/images.py --side 1008 --group 8
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import torch
from PIL import Image

from trainer.context import Context
from trainer.engines import vllm_server
from trainer.engines.base import Request, Sampling
from trainer.engines.vllm_server import VllmServer
from trainer.models.tiny_vision import TinyVision
from trainer.policies.vision_lm import VisionLM
from trainer.weights.base import probe_rows
from trainer.weights.in_process import InProcess


async def with_each(engine: VllmServer, row: Any, sampling: dict[str, Any], read: Any) -> Any:
    """In place of `VllmServer._call`: the images go with each request."""
    return await engine.fleet.call(vllm_server._GENERATE, engine._body(row, sampling), read)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=1008, help="of the image, in pixels")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=16, help="of a reply")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    side = arguments.side
    model = TinyVision(image_size=side, max_positions=(side // 28) ** 2 + 512)
    renderer = model.renderer()
    engine = VllmServer(workers=1, dtype="float32")
    ways = {"once, then by name": VllmServer._call, "with each request": with_each}
    with tempfile.TemporaryDirectory() as folder:
        context = Context(Path(folder), 0, 1, "cpu", 0, 1, model, renderer)
        policy = VisionLM(dtype="float32")
        async with policy.open(context), engine.open(context):
            rendered = renderer.render([_asked(0, side)])
            probe = probe_rows(rendered, policy.vocabulary, renderer.banned_ids, 8)
            await InProcess().publish(policy, engine, 0, probe)
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            sent: dict[str, int] = {}
            for round_ in range(arguments.rounds + 1):
                for place, (way, call) in enumerate(ways.items()):
                    VllmServer._call = call
                    number = 2 * round_ + place + 1
                    sent[way], took = await _group(engine, renderer, number, arguments)
                    if round_:  # the first is a warm-up
                        seconds[way].append(took)
    first, second = (statistics.median(found) for found in seconds.values())
    print(
        f"an image of {side} x {side} ({rendered.inputs['pixel_values'].shape[0]:,} patches), "
        f"a group of {arguments.group} replies of {arguments.tokens} tokens, medians of "
        f"{arguments.rounds}\n\n| images | sent MB | seconds a group |\n|---|---|---|"
    )
    for way, found in seconds.items():
        print(f"| {way} | {sent[way] / 1e6:.1f} | {statistics.median(found):.2f} |")
    print(f"\nonce takes {first / second:.2f} of the time")


async def _group(
    engine: VllmServer, renderer: Any, number: int, arguments: argparse.Namespace
) -> tuple[int, float]:
    """Bytes sent, and seconds, of the replies to an image of its own."""
    rendered = renderer.render([_asked(number, arguments.side)])
    sampling = Sampling(max_tokens=arguments.tokens)
    sent = 0

    async def count(request: httpx.Request) -> None:
        nonlocal sent
        sent += int(request.headers["content-length"])

    engine.fleet.members[0].client.event_hooks = {"request": [count]}
    requests = [
        Request(rendered.tokens, sampling, i, rendered.inputs, (i,)) for i in range(arguments.group)
    ]
    start = time.perf_counter()
    await asyncio.gather(*map(engine.sample, requests))
    return sent, time.perf_counter() - start


def _asked(number: int, side: int) -> dict[str, Any]:
    noise = torch.randint(0, 256, (side, side, 3), generator=torch.Generator().manual_seed(number))
    image = Image.fromarray(noise.to(torch.uint8).numpy())
    text = {"type": "text", "text": "where is the circle ?"}
    return {"role": "user", "content": [{"type": "image", "image": image}, text]}


if __name__ == "__main__":
    asyncio.run(main())
