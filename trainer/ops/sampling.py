"""Draws tokens so that a row's sample never depends on its neighbours.

Every row has its own counter-based random numbers (seed, position), and the token is found by
inverting the cumulative distribution in float64. Nothing is read from torch's generators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_BLOCK = 32  # positions whose random numbers are made at once


class Settings(Protocol):
    """How the tokens of one row are drawn; `engines.base.Sampling` is one."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float


def uniforms(keys: Tensor, start: int, count: int) -> Tensor:
    """Uniform numbers in [0, 1): numbers `start` to `start + count - 1` of the splitmix64 streams
    that `keys` i64[N] begin. Returns f64[N, count] of 53 random bits each.

    Source: Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014.
    """
    steps = torch.arange(start + 1, start + count + 1, device=keys.device) * _signed(_GOLDEN)
    return _shift(_splitmix64(keys[:, None] + steps), 11).double() * 2.0**-53


def _splitmix64(state: Tensor) -> Tensor:
    state = (state ^ _shift(state, 30)) * _signed(0xBF58476D1CE4E5B9)
    state = (state ^ _shift(state, 27)) * _signed(0x94D049BB133111EB)
    return state ^ _shift(state, 31)


def _signed(value: int) -> int:
    """The 64-bit integer of the same bits: torch multiplies signed integers, and wraps."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _shift(value: Tensor, bits: int) -> Tensor:
    """Logical right shift: `>>` repeats the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


class Sampler:
    """Turns the logits of N rows, each with its own settings and seed, into tokens."""

    def __init__(
        self,
        settings: Sequence[Settings],
        seeds: Sequence[int],
        banned: Sequence[int],
        device: torch.device | str,
    ):
        """`banned`: token ids that no row may draw. Seeds are taken modulo 2^64."""
        self._settings = list(settings)
        self._device = torch.device(device)
        self._banned = torch.tensor(sorted(banned), dtype=torch.int64, device=device)
        signed = torch.tensor([_signed(seed) for seed in seeds], dtype=torch.int64, device=device)
        self._keys = _splitmix64(signed)
        self._prepare()

    def _prepare(self) -> None:
        """Per-row numbers as columns; None where no row asks for that step, so it is skipped."""
        self._block, self._block_start = self._keys.new_empty((len(self._keys), 0)), 0
        greedy = [s.temperature == 0 for s in self._settings]
        temperature = [s.temperature or 1.0 for s in self._settings]
        top_k = [s.top_k * (s.temperature > 0) for s in self._settings]
        top_p = [s.top_p if s.temperature > 0 else 1.0 for s in self._settings]
        min_p = [s.min_p * (s.temperature > 0) for s in self._settings]
        everything = torch.iinfo(torch.int64).max
        self._any_drawn = not all(greedy)
        self._greedy = self._column(greedy, torch.bool, any(greedy))
        self._temperature = self._column(temperature, torch.float32, set(temperature) != {1.0})
        self._top_k = self._column([k or everything for k in top_k], torch.int64, any(top_k))
        self._top_p = self._column(top_p, torch.float64, min(top_p) < 1)
        self._min_p = self._column(min_p, torch.float32, any(min_p))

    def _column(self, values: list, dtype: torch.dtype, wanted: bool) -> Tensor | None:
        """[N, 1]"""
        if not wanted:
            return None
        return torch.tensor(values, dtype=dtype, device=self._device)[:, None]

    def keep(self, rows: Sequence[int], index: Tensor) -> None:
        """Drops all rows but `rows`; `index` is the same on the device."""
        self._settings = [self._settings[i] for i in rows]
        self._keys = self._keys[index]
        self._prepare()

    def draw(self, logits: Tensor, position: int) -> tuple[Tensor, Tensor]:
        """The next token of each row and its log-prob.

        logits [N, V]; `position`: tokens the reply already has. In order: banned ids get -inf,
        the temperature divides, then top-k, top-p and min-p cut. Returns i64[N] and f32[N]: the
        log-prob under the distribution the token was drawn from; for a greedy row, the argmax
        and its log-prob at temperature 1. Where the logits are not finite the log-prob is NaN.
        """
        scores = logits.float()
        if len(self._banned):
            scores = scores.index_fill(-1, self._banned, -torch.inf)
        if self._temperature is not None:
            scores = scores / self._temperature
        if self._top_k is not None or self._top_p is not None or self._min_p is not None:
            scores = self._cut(scores)
        shares = scores.softmax(-1)
        if not self._any_drawn:
            tokens = scores.argmax(-1, keepdim=True)
        else:
            tokens = self._invert(shares, position)
            if self._greedy is not None:
                tokens = torch.where(self._greedy, scores.argmax(-1, keepdim=True), tokens)
        return tokens[:, 0], shares.gather(-1, tokens)[:, 0].log()

    def _invert(self, shares: Tensor, position: int) -> Tensor:
        """i64[N, 1]: the first token whose cumulative probability exceeds the row's uniform
        number. A token of probability 0 adds nothing to the sum, so it never is the first."""
        cumulative = shares.cumsum(-1, dtype=torch.float64)
        threshold = self._uniform(position) * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, threshold, right=True)
        return tokens.clamp_max_(shares.shape[-1] - 1)  # only NaN logits get there

    def _uniform(self, position: int) -> Tensor:
        column = position - self._block_start
        if not 0 <= column < self._block.shape[1]:
            self._block, self._block_start = uniforms(self._keys, position, _BLOCK), position
            column = 0
        return self._block[:, column : column + 1]

    def _cut(self, scores: Tensor) -> Tensor:
        """-inf for tokens outside the top-k, then the nucleus, then those under `min_p` times the
        best. Ties rank by token id, so exactly k tokens stay; the best one always stays."""
        if self._top_k is not None or self._top_p is not None:
            ranked, order = scores.sort(dim=-1, descending=True, stable=True)
            if self._top_k is not None:
                rank = torch.arange(ranked.shape[-1], device=ranked.device)
                ranked = ranked.masked_fill(rank >= self._top_k, -torch.inf)
            if self._top_p is not None:
                shares = ranked.softmax(-1, dtype=torch.float64)
                before = shares.cumsum(-1) - shares
                outside = before >= self._top_p
                outside[:, 0] = False
                ranked = ranked.masked_fill(outside, -torch.inf)
            scores = torch.empty_like(scores).scatter_(-1, order, ranked)
        if self._min_p is not None:
            floor = scores.amax(-1, keepdim=True) + self._min_p.log()
            scores = scores.masked_fill(scores < floor, -torch.inf)
        return scores
