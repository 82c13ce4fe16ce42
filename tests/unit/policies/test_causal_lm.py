"""Loss and gradients do not depend on how rows are laid out, split or ordered."""

from __future__ import annotations

import pytest
import torch

from trainer.errors import DataError
from trainer.models.tiny_text import TinyText
from trainer.policies.causal_lm import CausalLM

SMALL = {"hidden": 48, "heads": 3, "intermediate": 96}
MODELS = [TinyText(**SMALL), TinyText(architecture="qwen3", kv_heads=3, tied=False, **SMALL)]
LAYOUTS = [
    {"packing": "shared"},
    {"packing": "flat"},
    {"packing": "padded"},
    {"packing": "shared", "gradient_checkpointing": True},
    {"packing": "padded", "gradient_checkpointing": True},
    {"packing": "shared", "head_chunk": 1},
    {"packing": "flat", "head_chunk": 7},
]
# In float64 only transformers' RMSNorm rounds to float32; in float32 plain rows themselves are
# 1e-6 away from the truth.
PRECISIONS = [(torch.float64, 3e-7), (torch.float32, 1e-6)]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.architecture)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
async def test_equals_plain_rows(model, layout, text_batch, measure, plain, assert_same) -> None:
    for dtype, tolerance in PRECISIONS:
        ours = await measure(CausalLM(**layout), model, text_batch, dtype=dtype)
        assert_same(ours, plain(model, text_batch, dtype), tolerance)


@pytest.mark.parametrize("packing", ["shared", "flat", "padded"])
@pytest.mark.parametrize("budget", [1, 30, 55, 10_000])
async def test_equals_plain_rows_in_any_split_and_order(
    packing, budget, text_batch, measure, plain, assert_same
) -> None:
    order = [6, 2, 4, 0, 7, 5, 1, 3][: len(text_batch.tokens)]
    assert sorted(order) == list(range(len(text_batch.tokens)))
    for dtype, tolerance in PRECISIONS:
        ours = await measure(
            CausalLM(packing=packing),
            MODELS[0],
            text_batch,
            dtype=dtype,
            budget=budget,
            order=order,
        )
        assert_same(ours, plain(MODELS[0], text_batch, dtype), tolerance)


async def test_refuses_images(opened, text_batch) -> None:
    inputs = ({"pixel_values": torch.zeros(4, 2)},) * len(text_batch.tokens)
    async with opened(CausalLM(), MODELS[0]) as policy:
        with pytest.raises(DataError, match="set policy: vision_lm"):
            policy.evaluate(text_batch.with_(inputs=inputs))
