"""The sampler draws from the distribution it reports, and no row feels its neighbours."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from trainer.ops.sampling import Sampler, uniforms

DRAWS = 20_000


def settings(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0):
    return SimpleNamespace(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p)


def expected_shares(logits, s, banned=()):
    """Written plainly: temperature, then top-k, then top-p, then min-p, on one row of numbers."""
    scores = {i: x / s.temperature for i, x in enumerate(logits) if i not in banned}

    def normal(kept):
        total = sum(math.exp(scores[i]) for i in kept)
        return {i: math.exp(scores[i]) / total for i in kept}

    kept = sorted(scores, key=lambda i: (-scores[i], i))
    if s.top_k:
        kept = kept[: s.top_k]
    shares, total, nucleus = normal(kept), 0.0, []
    for i in kept:
        if total >= s.top_p:
            break
        nucleus.append(i)
        total += shares[i]
    shares = normal(nucleus)
    best = max(shares.values())
    shares = normal([i for i in nucleus if shares[i] >= s.min_p * best])
    return [shares.get(i, 0.0) for i in range(len(logits))]


@pytest.mark.parametrize(
    "s",
    [
        settings(),
        settings(temperature=0.7),
        settings(temperature=1.5, top_k=4),
        settings(top_p=0.8),
        settings(min_p=0.2),
        settings(temperature=0.9, top_k=6, top_p=0.9, min_p=0.05),
    ],
)
def test_draws_follow_the_distribution(s):
    logits = [0.3, 2.0, -1.0, 1.1, 0.0, 4.0, 1.9, -3.0, 0.9, 1.0]
    banned = [5]
    expected = expected_shares(logits, s, banned)
    sampler = Sampler([s] * DRAWS, range(DRAWS), banned, "cpu")
    tokens, logprobs = sampler.draw(torch.tensor(logits).expand(DRAWS, -1), 0)
    counts = torch.bincount(tokens, minlength=len(logits)).tolist()
    assert all(n == 0 for n, p in zip(counts, expected, strict=True) if p == 0)
    pairs = [(n, DRAWS * p) for n, p in zip(counts, expected, strict=True) if p]
    chi_square = sum((n - e) ** 2 / e for n, e in pairs)
    freedom = len(pairs) - 1
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom) + 4  # beyond the 0.999 quantile
    for token, logprob in zip(tokens[:50].tolist(), logprobs[:50].tolist(), strict=True):
        assert logprob == pytest.approx(math.log(expected[token]), abs=1e-6)


def test_positions_of_one_row_are_independent_draws():
    """The same row at many positions: uniform, and without serial correlation."""
    sampler = Sampler([settings()], [42], [], "cpu")
    logits = torch.zeros(1, 4)
    tokens = torch.cat([sampler.draw(logits, t)[0] for t in range(4000)])
    counts = torch.bincount(tokens, minlength=4).double()
    assert ((counts - 1000) ** 2 / 1000).sum() < 16.3  # 0.999 quantile of chi-square, 3 degrees
    pairs = torch.bincount(tokens[:-1] * 4 + tokens[1:], minlength=16).double()
    assert ((pairs - 250) ** 2 / 250).sum() < 37.7  # 15 degrees


def test_uniforms_are_splitmix64():
    """First outputs of the reference implementation for seed 1234567."""
    first = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    expected = [(x >> 11) * 2.0**-53 for x in first]
    assert uniforms(torch.tensor([1234567]), 0, 3)[0].tolist() == expected
    assert uniforms(torch.tensor([5, 1234567]), 2, 1)[1].item() == expected[2]


def test_a_row_depends_on_its_seed_position_and_logits_only():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 50, generator=generator)
    every = [
        settings(),
        settings(top_p=0.7),
        settings(temperature=0),
        settings(top_k=3),
        settings(temperature=0.5),
        settings(min_p=0.1),
    ]
    seeds = [3, -1, 2**63, 2**64 + 3, 0, 9]
    batch = Sampler(every, seeds, [0], "cpu")
    for position in (0, 1, 31, 32, 100, 7):
        tokens, logprobs = batch.draw(logits, position)
        for i in range(6):
            alone = Sampler([every[i]], [seeds[i]], [0], "cpu").draw(logits[i : i + 1], position)
            assert alone[0].item() == tokens[i]
            assert alone[1].item() == pytest.approx(logprobs[i].item(), abs=1e-6)
    before = batch.draw(logits, 5)
    kept = [1, 2, 5]
    batch.keep(kept, torch.tensor(kept))
    after = batch.draw(logits[kept], 5)
    assert torch.equal(before[0][kept], after[0])
    assert torch.equal(before[1][kept], after[1])


def test_greedy_takes_the_best_allowed_token_at_temperature_one():
    logits = torch.tensor([[1.0, 9.0, 3.0, 2.0]])
    tokens, logprobs = Sampler([settings(temperature=0, top_k=1)], [0], [1], "cpu").draw(logits, 0)
    assert tokens.tolist() == [2]
    expected = 3 - math.log(math.exp(1) + math.exp(3) + math.exp(2))
    assert logprobs.item() == pytest.approx(expected, abs=1e-6)


def test_ties_leave_exactly_k_tokens():
    sampler = Sampler([settings(top_k=2)] * 500, range(500), [], "cpu")
    tokens, logprobs = sampler.draw(torch.zeros(500, 10), 0)
    assert set(tokens.tolist()) == {0, 1}
    assert logprobs.tolist() == pytest.approx([math.log(0.5)] * 500)


def test_the_best_token_survives_any_cut():
    every = [settings(top_p=1e-9), settings(min_p=0.999), settings(top_k=1)]
    tokens, logprobs = Sampler(every, [1, 2, 3], [], "cpu").draw(
        torch.tensor([[0.0, 1.0, 0.5]]).expand(3, -1), 0
    )
    assert tokens.tolist() == [1, 1, 1]
    assert logprobs.tolist() == [0, 0, 0]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_give_nan_and_a_valid_token(bad):
    logits = torch.zeros(2, 5)
    logits[1, 2] = bad
    tokens, logprobs = Sampler([settings()] * 2, [1, 2], [], "cpu").draw(logits, 0)
    assert logprobs.isfinite().tolist() == [True, False]
    assert logprobs[1].isnan()
    assert 0 <= tokens[1] < 5
