"""Tokens per second: the hf engine beside transformers.generate, in one run.

Both sample the same number of replies to the same prompts from the same tiny model, with the same
stop tokens, so replies have many lengths. The two take turns (ABAB...); medians are printed.
generate() pads to the longest reply and counts only tokens up to the stop; prompts are repeated
for the group, as trainers do.

    python scripts/bench/generate.py --threads 1
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from trainer.context import Context
from trainer.engines.base import Request, Sampling
from trainer.engines.hf import Hf
from trainer.models.tiny_text import TinyText

PROMPTS, GROUP, MAX_TOKENS = 8, 8, 64
STOP_IDS = tuple(range(6, 14))
"""Digits: an untrained model draws one after about a dozen tokens."""


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt-lengths", type=int, nargs="+", default=[18, 100])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    plug_in = TinyText()
    plain = plug_in.load(dtype="float32", attn_implementation="sdpa").to(arguments.device)
    engine = Hf(dtype="float32")
    print(
        f"{sum(p.numel() for p in plain.parameters()):,} parameters, {PROMPTS} prompts x {GROUP} "
        f"replies of at most {MAX_TOKENS} tokens, {arguments.device}, "
        f"{arguments.threads} thread(s), medians of {arguments.rounds}\n\n"
        "| prompt tokens | mean reply | engine tok/s | generate tok/s | ratio |\n"
        "|---|---|---|---|---|"
    )
    async with engine.open(_context(plug_in, arguments.device)):
        for length in arguments.prompt_lengths:
            prompts = torch.randint(
                14, 100, (PROMPTS, length), generator=torch.Generator().manual_seed(length)
            )
            await _engine_rate(engine, prompts, 0)  # warm-up
            _generate_rate(plain, prompts, 0)
            ours, theirs, lengths = [], [], []
            for round_ in range(1, arguments.rounds + 1):
                rate, mean = await _engine_rate(engine, prompts, round_)
                ours.append(rate)
                lengths.append(mean)
                theirs.append(_generate_rate(plain, prompts, round_))
            a, b = statistics.median(ours), statistics.median(theirs)
            mean = statistics.mean(lengths)
            print(f"| {length} | {mean:.1f} | {a:,.0f} | {b:,.0f} | {a / b:.2f} |")


def _context(plug_in: TinyText, device: str) -> Context:
    known = plug_in.renderer()
    renderer: Any = SimpleNamespace(
        stop_ids=STOP_IDS, banned_ids=known.banned_ids, decode=known.decode
    )
    return Context(
        folder=Path(),
        seed=0,
        total_steps=1,
        device=device,
        rank=0,
        world=1,
        model=plug_in,
        renderer=renderer,
    )


async def _engine_rate(engine: Hf, prompts: torch.Tensor, seed: int) -> tuple[float, float]:
    """Tokens per second, and the mean length of a reply."""
    requests = [
        Request(tokens, Sampling(max_tokens=MAX_TOKENS), 10_000 * seed + 100 * i + j, order=(i, j))
        for i, tokens in enumerate(prompts.tolist())
        for j in range(GROUP)
    ]
    start = time.perf_counter()
    replies = await asyncio.gather(*(engine.sample(request) for request in requests))
    tokens = sum(len(reply.tokens) for reply in replies)
    return tokens / (time.perf_counter() - start), tokens / len(replies)


@torch.no_grad()
def _generate_rate(model: Any, prompts: torch.Tensor, seed: int) -> float:
    torch.manual_seed(seed)
    ids = prompts.to(model.device).repeat_interleave(GROUP, 0)
    start = time.perf_counter()
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        top_k=0,
        max_new_tokens=MAX_TOKENS,
        eos_token_id=list(STOP_IDS),
        suppress_tokens=[model.config.pad_token_id],
        pad_token_id=model.config.pad_token_id,
    )
    new = out[:, ids.shape[1] :]
    tokens = int((new != model.config.pad_token_id).sum())  # padding cannot be drawn
    return tokens / (time.perf_counter() - start)


if __name__ == "__main__":
    asyncio.run(main())
