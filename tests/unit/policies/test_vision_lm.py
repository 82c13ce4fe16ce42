"""Images: the same loss and gradients in every layout, and one pass per prompt group."""

from __future__ import annotations

import pytest
import torch

from trainer.errors import DataError
from trainer.policies.vision_lm import VisionLM

LAYOUTS = [
    {"packing": "shared"},
    {"packing": "flat"},
    {"packing": "padded"},
    {"packing": "shared", "gradient_checkpointing": True},
    {"packing": "shared", "head_chunk": 3},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
async def test_equals_plain_rows(
    layout, vision_model, vision_batch, measure, plain, assert_same
) -> None:
    for dtype, tolerance in ((torch.float64, 3e-7), (torch.float32, 1e-6)):
        ours = await measure(VisionLM(**layout), vision_model, vision_batch, dtype=dtype)
        assert_same(ours, plain(vision_model, vision_batch, dtype), tolerance)


@pytest.mark.parametrize("packing", ["shared", "flat", "padded"])
@pytest.mark.parametrize("budget", [1, 120, 400])
async def test_equals_plain_rows_in_any_split_and_order(
    packing, budget, vision_model, vision_batch, measure, plain, assert_same
) -> None:
    ours = await measure(
        VisionLM(packing=packing),
        vision_model,
        vision_batch,
        dtype=torch.float64,
        budget=budget,
        order=[5, 0, 7, 3, 1, 6, 4, 2],
    )
    assert_same(ours, plain(vision_model, vision_batch, torch.float64), 3e-7)


@pytest.mark.parametrize(
    ("packing", "patches"),
    [
        # group 0: 36 patches once; group 1: 24 once, and 24 + 16 for the branch with a second image
        ("shared", 36 + 24 + 40),
        ("flat", 3 * 36 + 3 * 24 + 40),
    ],
)
async def test_encodes_the_images_of_a_group_once(
    packing, patches, opened, vision_model, vision_batch
) -> None:
    seen = []
    async with opened(VisionLM(packing=packing), vision_model) as policy:
        policy.backbone.model.visual.register_forward_hook(
            lambda module, args, output: seen.append(len(args[0]))
        )
        policy.evaluate(vision_batch)
    assert seen == [patches]


async def test_plan_counts_patches_once_per_group(opened, vision_model, vision_batch, pick) -> None:
    rows = pick(vision_batch, [0, 1, 2])
    async with opened(VisionLM(), vision_model) as policy:
        # prompt 3 + 11 + 4 tokens, replies of 5, 1 and 9 without their last token, 36 patches
        assert policy.plan(rows, [0, 1, 2], 18 + 4 + 0 + 8 + 36) == [[0, 1, 2]]
        assert policy.plan(rows, [0, 1, 2], 18 + 4 + 0 + 8 + 35) == [[0, 1], [2]]
    async with opened(VisionLM(packing="flat"), vision_model) as policy:
        assert policy.plan(rows, [0, 1, 2], 18 + 4 + 0 + 8 + 36) == [[0], [1], [2]]


async def test_placeholders_must_fit_the_images(opened, vision_model, vision_batch, pick) -> None:
    row = pick(vision_batch, [0])
    tokens = row.tokens.clone()
    tokens[0, 1] = vision_model.config().image_token_id
    async with opened(VisionLM(), vision_model) as policy:
        with pytest.raises(DataError, match=r"10 image placeholder tokens.* fill 9"):
            policy.evaluate(row.with_(tokens=tokens))
        with pytest.raises(DataError, match="video"):
            policy.evaluate(row.with_(inputs=({"video": tokens},)))
