"""Run by test_vision.py in a process of its own: vLLM in the trainer's process, with images.

Where torchvision is missing its place has to be taken before transformers looks for it, as in a
server's processes; where it is installed this is what `engine: vllm` does."""

from trainer.vllm_adapter.no_torchvision import pretend

pretend()

import asyncio  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from conftest import image_question, pair_of  # noqa: E402

from trainer.engines.base import Request, Sampling  # noqa: E402
from trainer.engines.vllm import Vllm  # noqa: E402
from trainer.models.tiny_vision import TinyVision  # noqa: E402
from trainer.policies.vision_lm import VisionLM  # noqa: E402


async def main(folder: Path) -> None:
    """Prints the largest gap to the policy: of the probe after two syncs, and of replies."""
    async with pair_of(
        Vllm(max_model_len=256),
        folder,
        model=TinyVision(),
        policy=VisionLM(),
        content=image_question(),
    ) as pair:
        gaps = [await pair.publish()]
        pair.change(0.02)
        gaps.append(await pair.publish())
        row, inputs = pair.probe[0]
        prompt = row[:-24]  # without the probe's own tokens
        sampling = Sampling(max_tokens=12)
        requests = [Request(prompt, sampling, i, inputs=inputs, order=(i,)) for i in range(4)]
        replies = await asyncio.gather(*map(pair.engine.sample, requests))
        assert len({tuple(reply.tokens) for reply in replies}) > 1
        for reply in replies:
            (scores,) = pair.policy.probe([([*prompt, *reply.tokens], inputs)])
            expected = scores[len(prompt) - 1 :]
            gaps += [abs(a - b) for a, b in zip(reply.logprobs, expected, strict=True)]
    print("gap", max(gaps))


asyncio.run(main(Path(sys.argv[1])))
