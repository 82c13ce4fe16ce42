"""Shared-prompt attention against plain attention over each row's own full keys."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from trainer.ops import decoding
from trainer.ops.caches import packs
from trainer.ops.decoding import Decode, Prefill, join

HEADS, KV_HEADS, DIM = 6, 2, 8
SCALE = 0.3


def projections(n, length, generator):
    return [
        torch.randn(n, heads, length, DIM, generator=generator)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    ]


def plain(query, key, value, causal=False):
    return scaled_dot_product_attention(
        query, key, value, is_causal=causal, scale=SCALE, enable_gqa=True
    ).transpose(1, 2)


def prefilled(lengths, parts):
    """Prefills of `lengths`, `parts` of them separately; the packed keys by prompt."""
    generator = torch.Generator().manual_seed(sum(lengths))
    prefills, own = [], []
    for part in parts:
        plan = Prefill(part, "cpu")
        q, k, v = projections(1, sum(part), generator)
        out = plan.attend(0, q, k, v, SCALE, 0.0)
        pieces = [x.split(part, dim=2) for x in (q, k, v)]
        for i, piece in enumerate(out.split(part, dim=1)):
            expected = plain(*(x[i] for x in pieces), causal=True)
            assert torch.allclose(piece, expected, atol=1e-6)
        own += [(k, v) for _, k, v in zip(*pieces, strict=True)]
        prefills.append(plan)
    return prefills, own


@pytest.mark.parametrize(
    ("parts", "owner"),
    [
        ([[4, 4]], [0, 0, 0, 1, 1, 1]),  # nothing to pad
        ([[4, 7, 1]], [0, 0, 0, 1, 2, 2]),  # lengths and group sizes differ
        ([[3], [9, 2]], [0, 1, 2]),  # two prefills, one row each
        ([[5]], [0, 0, 0, 0]),
    ],
)
def test_rows_see_their_prompt_and_their_own_tokens(parts, owner, monkeypatch):
    monkeypatch.setattr(decoding, "_FIRST_CAPACITY", 2)  # grows at the 2nd, 4th and 8th token
    lengths = [n for part in parts for n in part]
    prefills, prompts = prefilled(lengths, parts)
    stored, found = join(prefills)
    assert found == lengths
    plan = Decode(stored, lengths, owner, most=11)
    keys = [prompts[i][0] for i in owner]
    values = [prompts[i][1] for i in owner]
    generator = torch.Generator().manual_seed(1)
    for step in range(11):
        if step in (3, 6) and len(owner) > 2:  # some rows have ended
            kept = [i for i in range(len(owner)) if i != len(owner) // 2 and i != 0]
            plan.keep(kept, torch.tensor(kept))
            owner, keys, values = ([x[i] for i in kept] for x in (owner, keys, values))
        q, k, v = projections(len(owner), 1, generator)
        out = plan.attend(0, q, k, v, SCALE, 0.0)
        plan.advance()
        for i in range(len(owner)):
            keys[i] = torch.cat([keys[i], k[i : i + 1]], 2)
            values[i] = torch.cat([values[i], v[i : i + 1]], 2)
            expected = plain(q[i : i + 1], keys[i], values[i])
            assert torch.allclose(out[i : i + 1], expected, atol=1e-6)


def test_a_prompt_is_stored_once_and_freed_with_its_rows():
    lengths = [5, 3, 8, 2]
    prefills, _ = prefilled(lengths, [lengths])
    stored, _ = join(prefills)
    plan = Decode(stored, lengths, [0] * 8 + [1] * 8 + [2] * 8 + [3] * 8, most=4)
    assert stored[0][0].shape == (4, KV_HEADS, 8, DIM)
    kept = [3, 9, 10]
    plan.keep(kept, torch.tensor(kept))
    assert stored[0][0].shape == (2, KV_HEADS, 5, DIM)


def test_extreme_scores_do_not_overflow():
    """One side of the merge has all of the mass."""
    prefills, prompts = prefilled([3], [[3]])
    stored, _ = join(prefills)
    for scale in (1e4, -1e4):
        plan = Decode(stored, [3], [0], most=4)
        q, k, v = projections(1, 1, torch.Generator().manual_seed(2))
        k = q[:, ::3] * scale
        out = plan.attend(0, q, k, v, SCALE, 0.0)
        key = torch.cat([prompts[0][0], k], 2)
        value = torch.cat([prompts[0][1], v], 2)
        assert torch.allclose(out, plain(q, key, value), atol=1e-5)


def test_half_precision_stays_half_and_close():
    prefills, _ = prefilled([6, 4], [[6, 4]])
    stored, _ = join(prefills)
    half = {0: tuple(x.bfloat16() for x in stored[0])}
    q, k, v = projections(4, 1, torch.Generator().manual_seed(2))
    exact = Decode(stored, [6, 4], [0, 0, 1, 1], 2).attend(0, q, k, v, SCALE, 0.0)
    q, k, v = (x.bfloat16() for x in (q, k, v))
    rough = Decode(half, [6, 4], [0, 0, 1, 1], 2).attend(0, q, k, v, SCALE, 0.0)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() < 0.03


def test_packs_respect_the_budget_and_the_order():
    assert packs([3, 4, 5, 20, 1, 1], 8) == [[0, 1], [2], [3], [4, 5]]
    assert packs([9], 8) == [[0]]
    assert packs([], 8) == []
