"""Tokens per second of every way to sample, and the cost of one weight sync, in one run.

hf engine, vLLM in process, one and two vLLM servers, and transformers' generate: the same model,
prompts and number of replies, all replies of one length. `--sizes tiny` and `100m`.

    python scripts/bench/rollout.py --sizes tiny 100m --threads 1
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from trainer.context import Context
from trainer.engines.base import Engine, Request, Sampling
from trainer.engines.hf import Hf
from trainer.engines.vllm import Vllm
from trainer.engines.vllm_server import VllmServer
from trainer.models.tiny_text import TinyText
from trainer.policies.causal_lm import CausalLM
from trainer.weights.base import probe_rows
from trainer.weights.in_process import InProcess

SIZES: dict[str, tuple[TinyText, int, int, int]] = {
    "tiny": (TinyText(), 8, 8, 32),
    "100m": (
        TinyText(hidden=768, layers=13, heads=12, kv_heads=4, intermediate=3072),
        4,
        4,
        16,
    ),
}
"""Model, prompts, replies to each, tokens of a reply."""
NEVER = (0,)
"""Padding is banned: replies end at their longest."""


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["tiny"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--prompt-length", type=int, default=18)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    for size in arguments.sizes:
        await measure(size, arguments)


async def measure(size: str, arguments: argparse.Namespace) -> None:
    model, prompts, group, tokens = SIZES[size]
    limit = arguments.prompt_length + tokens + 8
    engines: dict[str, Engine] = {"hf": Hf(dtype="float32")}
    engines["vllm in process"] = Vllm(dtype="float32", max_model_len=limit)
    for n in arguments.servers:
        engines[f"vllm_server, {n} worker(s)"] = VllmServer(
            workers=n, dtype="float32", max_model_len=limit
        )
    ids = torch.randint(
        14, 100, (prompts, arguments.prompt_length), generator=torch.Generator().manual_seed(0)
    )
    with tempfile.TemporaryDirectory() as folder:
        context = _context(model, arguments.device, Path(folder))
        policy = CausalLM(dtype="float32")
        async with policy.open(context):
            weights = sum(weight.numel() for _, weight in policy.weights())
            print(
                f"\n{size}: {weights:,} parameters, {prompts} prompts of "
                f"{arguments.prompt_length} tokens x {group} replies of {tokens} tokens, "
                f"{arguments.device}, {arguments.threads} thread(s) each, medians of "
                f"{arguments.rounds}\n\n"
                "| sampler | start s | tok/s | sync ms | probe gap |\n|---|---|---|---|---|"
            )
            rate = _generate_rate(policy.backbone, ids, group, tokens, arguments.rounds)
            print(f"| transformers generate | - | {rate:,.0f} | - | - |", flush=True)
            for name, engine in engines.items():
                line = await _engine_line(
                    engine, context, policy, ids, group, tokens, arguments.rounds
                )
                print(f"| {name} | {line} |", flush=True)


async def _engine_line(
    engine: Engine,
    context: Context,
    policy: CausalLM,
    ids: torch.Tensor,
    group: int,
    tokens: int,
    rounds: int,
) -> str:
    probe = probe_rows(
        SimpleNamespace(tokens=ids[0].tolist(), inputs={}), 100, context.renderer.banned_ids, 8
    )
    start = time.perf_counter()
    async with engine.open(context):
        began = time.perf_counter() - start
        gap = (await InProcess(tolerance=1.0).publish(policy, engine, 0, probe))["sync/probe_gap"]
        rates, syncs = [], []
        for round_ in range(rounds + 1):
            requests = [
                Request(row, Sampling(max_tokens=tokens), 1000 * round_ + 100 * i + j, order=(i, j))
                for i, row in enumerate(ids.tolist())
                for j in range(group)
            ]
            start = time.perf_counter()
            replies = await asyncio.gather(*map(engine.sample, requests))
            took = time.perf_counter() - start
            start = time.perf_counter()
            await engine.load(policy.weights(), round_ + 1)
            if round_:  # the first is a warm-up
                rates.append(sum(len(reply.tokens) for reply in replies) / took)
                syncs.append(1000 * (time.perf_counter() - start))
    rate, sync = statistics.median(rates), statistics.median(syncs)
    return f"{began:.1f} | {rate:,.0f} | {sync:.0f} | {gap:.1e}"


@torch.no_grad()
def _generate_rate(model: Any, ids: torch.Tensor, group: int, tokens: int, rounds: int) -> float:
    plain = type(model)(model.config.__class__.from_dict(model.config.to_dict())).eval()
    plain.set_attn_implementation("sdpa")
    plain.to(ids.device)
    rows = ids.repeat_interleave(group, 0)
    rates = []
    for round_ in range(rounds + 1):
        torch.manual_seed(round_)
        start = time.perf_counter()
        plain.generate(
            input_ids=rows,
            attention_mask=torch.ones_like(rows),
            do_sample=True,
            top_k=0,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            pad_token_id=model.config.pad_token_id,
        )
        rates.append(len(rows) * tokens / (time.perf_counter() - start))
    return statistics.median(rates[1:])


def _context(model: TinyText, device: str, folder: Path) -> Context:
    known = model.renderer()
    renderer: Any = SimpleNamespace(
        stop_ids=NEVER, banned_ids=known.banned_ids, decode=known.decode, image_processor=None
    )
    return Context(folder, 0, 1, device, 0, 1, model, renderer)


if __name__ == "__main__":
    asyncio.run(main())
