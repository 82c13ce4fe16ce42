"""Forward and backward pass of one update: padded rows against shared prefixes.

    python scripts/bench/update.py [--groups 8] [--rounds 7] [--prompts 18 100]

The baseline is what most trainers do: rows right-padded to the longest, transformers' own forward
with `logits_to_keep`, log-softmax over the replies. Both sides compute the same loss on the same
rows and take turns in one process (ABAB), on one thread; medians of processor time. Replies have
random lengths: mean 13, at most 64 tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer.context import Context
from trainer.models.tiny_text import TinyText
from trainer.policies.causal_lm import CausalLM
from trainer.types import Batch

GROUP, MEAN, LONGEST = 8, 13, 64


def make_batch(groups: int, prompt: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    rows = groups * GROUP
    stops = torch.rand(rows, LONGEST, generator=generator) < 1 / MEAN
    stops[:, -1] = True
    replies = stops.float().argmax(1) + 1
    tokens = torch.randint(6, 100, (rows, prompt + int(replies.max())), generator=generator)
    tokens[:, :prompt] = tokens[::GROUP, :prompt].repeat_interleave(GROUP, 0)
    at = torch.arange(tokens.shape[1])
    mask = (at >= prompt) & (at < prompt + replies[:, None])
    zeros = torch.zeros(tokens.shape)
    return Batch(
        tokens=tokens.masked_fill((at >= prompt) & ~mask, 0),
        mask=mask,
        length=prompt + replies,
        turn=mask.long() - 1,
        version=mask.long() - 1,
        rewards=zeros,
        weight=zeros + 1,
        group=torch.arange(rows) // GROUP,
        rollout=torch.arange(rows),
        sampled_logprobs=zeros,
        advantages=torch.randn(rows, 1, generator=generator) * mask,
    )


def padded_logprobs(network: nn.Module, batch: Batch, prompt: int) -> Tensor:
    """[B, replies]"""
    present = torch.arange(batch.tokens.shape[1]) < batch.length[:, None]
    keep = batch.tokens.shape[1] - prompt
    logits = network(
        input_ids=batch.tokens, attention_mask=present.long(), logits_to_keep=keep + 1
    ).logits[:, :-1]
    return logits.log_softmax(-1).gather(2, batch.tokens[:, prompt:, None])[..., 0]


def gradient(network: nn.Module, loss: Callable[[], Tensor]) -> tuple[float, Tensor]:
    network.zero_grad(set_to_none=True)
    value = loss()
    value.backward()
    return value.item(), torch.cat([p.grad.flatten() for p in network.parameters()])


def timed(network: nn.Module, loss: Callable[[], Tensor]) -> float:
    network.zero_grad(set_to_none=True)
    start = time.process_time()
    loss().backward()
    return time.process_time() - start


async def compare(groups: int, prompt: int, rounds: int) -> None:
    model = TinyText()
    baseline = model.load(dtype="float32", attn_implementation="sdpa").train()
    batch = make_batch(groups, prompt)
    context = Context(Path("."), 0, 1, "cpu", 0, 1, model, _NothingBanned())
    policy = CausalLM(dtype="float32")
    async with policy.open(context):
        count = batch.mask.sum()

        def ours() -> Tensor:
            return -(policy.evaluate(batch).logprobs * batch.advantages).sum() / count

        def padded() -> Tensor:
            logprobs = padded_logprobs(baseline, batch, prompt)
            return -(logprobs * batch.advantages[:, prompt:]).sum() / count

        loss_a, grad_a = gradient(baseline, padded)
        loss_b, grad_b = gradient(policy.backbone, ours)
        times: dict[str, list[float]] = {"padded": [], "shared": []}
        for _ in range(rounds):
            times["padded"].append(timed(baseline, padded))
            times["shared"].append(timed(policy.backbone, ours))
    a, b = (statistics.median(times[name]) for name in ("padded", "shared"))
    lengths = batch.mask.sum(1).float()
    difference = float((grad_a - grad_b).norm() / grad_a.norm())
    print(
        f"{prompt:6d} {len(batch.tokens):5d} {lengths.mean():11.1f} {int(lengths.max()):4d} "
        f"{a * 1e3:10.1f} {b * 1e3:10.1f} {a / b:7.2f}x {abs(loss_a - loss_b):10.1e} "
        f"{difference:10.1e}"
    )


class _NothingBanned:
    banned_ids = ()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--prompts", type=int, nargs="+", default=[18, 100])
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("prompt  rows  mean reply  max  padded ms  shared ms   ratio    |dloss|  grad diff")
    for prompt in args.prompts:
        await compare(args.groups, prompt, args.rounds)


if __name__ == "__main__":
    asyncio.run(main())
