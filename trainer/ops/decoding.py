"""Attention for sampling: each prompt is computed and stored once, whatever the group size.

`Prefill` lays out the packed prompts [1, S], S the sum of their lengths. `Decode` lays out one new
token per row [N, 1] that sees [its prompt's keys | its own keys]. The two parts are attended
separately and merged by their log-sum-exp, so keys are never concatenated, repeated or copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

_FIRST_CAPACITY = 64
"""Own tokens a row has room for at first; the room doubles when it is used up."""

KeysValues = dict[int, tuple[Tensor, Tensor]]
"""By layer; [P, Hk, L, D] each."""


class Prefill:
    """Block-causal attention of packed prompts: each token sees its own prompt up to itself."""

    def __init__(self, lengths: Sequence[int], device: torch.device | str, *, store: bool = True):
        """`lengths` of the P prompts, in packed order; `store` keeps keys and values."""
        self.lengths = list(lengths)
        self.longest = max(lengths)
        self.stored: KeysValues = {}
        self._store = store
        self._padded = self._packed = None
        if min(lengths) < self.longest:
            starts = torch.tensor([0, *accumulate(lengths[:-1])])[:, None]
            last = torch.tensor(lengths)[:, None] - 1
            column = torch.arange(self.longest)[None]
            self._padded = (starts + column.minimum(last)).to(device)  # [P, L] into the packed row
            self._packed = (column <= last).flatten().nonzero()[:, 0].to(device)  # [S] back

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float
    ) -> Tensor:
        """As `AttentionPlan.attend`, with N = 1 and L = S. Prompts are padded on the right here
        and only here: under a causal mask no token sees what is right of it."""
        query, key, value = self._pad(query), self._pad(key), self._pad(value)
        if self._store:
            self.stored[layer] = key.contiguous(), value.contiguous()
        out = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=True
        )
        out = out.transpose(1, 2).flatten(0, 1)  # [P * L, H, D]
        return (out if self._packed is None else out[self._packed])[None]

    def _pad(self, packed: Tensor) -> Tensor:
        """[1, H, S, D] -> [P, H, L, D]"""
        if self._padded is None:
            padded = packed[0].unflatten(1, (len(self.lengths), self.longest))
        else:
            padded = packed[0][:, self._padded]
        return padded.transpose(0, 1)

    @property
    def ends(self) -> list[int]:
        """Index of each prompt's last token in the packed row."""
        return [end - 1 for end in accumulate(self.lengths)]


def join(prefills: Sequence[Prefill]) -> tuple[KeysValues, list[int]]:
    """Stored keys and values of several prefills, padded to one length, and all lengths."""
    lengths = [length for prefill in prefills for length in prefill.lengths]
    if len(prefills) == 1:
        return prefills[0].stored, lengths
    longest = max(lengths)
    joined = {}
    for layer in list(prefills[0].stored):  # freed layer by layer: the peak stays at one copy
        parts = [
            [F.pad(x, (0, 0, 0, longest - x.shape[2])) for x in prefill.stored.pop(layer)]
            for prefill in prefills
        ]
        joined[layer] = (torch.cat([k for k, _ in parts]), torch.cat([v for _, v in parts]))
    return joined, lengths


class Decode:
    """Attention of one new token per row over its prompt (shared) and its own earlier tokens.

    Memory: prompts once, plus per row its own tokens rounded up to a power of two.
    """

    def __init__(
        self, prompts: KeysValues, lengths: Sequence[int], owner: Sequence[int], most: int
    ):
        """`prompts`: keys and values of P prompts of `lengths`, right-padded; row i continues
        prompt `owner[i]`; owners ascend. No row gets more than `most` tokens."""
        self._prompts = prompts
        self._lengths = list(lengths)
        self._owner = list(owner)
        self._most = most
        self._own: KeysValues = {}
        self._used = 0  # own tokens stored before the current one
        self._capacity = min(most, _FIRST_CAPACITY)
        self._lay_out()

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float
    ) -> Tensor:
        """As `AttentionPlan.attend`, with L = 1."""
        n, heads, _, dim = query.shape
        kv_heads = key.shape[1]
        if layer not in self._own:
            room = (n * kv_heads, self._capacity, dim)
            self._own[layer] = key.new_empty(room), value.new_empty(room)
        own_keys, own_values = self._own[layer]
        now = self._used
        own_keys[:, now] = key.reshape(-1, dim)
        own_values[:, now] = value.reshape(-1, dim)

        query = (query * scale).reshape(n, kv_heads, heads // kv_heads, dim)
        own, own_mass = _attend(
            query.flatten(0, 1), own_keys[:, : now + 1], own_values[:, : now + 1], None
        )
        keys, values = self._prompts[layer]
        shared, shared_mass = _attend(
            self._by_prompt(query), keys.flatten(0, 1), values.flatten(0, 1), self._bias(kv_heads)
        )
        shared = self._by_row(shared, query.shape)
        shared_mass = self._by_row(shared_mass, (*query.shape[:-1], 1))
        share = torch.sigmoid(shared_mass - own_mass.view_as(shared_mass))
        out = torch.lerp(own.view_as(shared), shared, share)
        return out.to(value.dtype).view(n, 1, heads, dim)

    def advance(self) -> None:
        """To be called after every forward pass: the next token gets the next place."""
        self._used += 1
        if self._used == self._capacity < self._most:
            self._capacity = min(2 * self._capacity, self._most)
            self._own = {
                layer: (self._grown(keys), self._grown(values))
                for layer, (keys, values) in self._own.items()
            }

    def keep(self, rows: Sequence[int], index: Tensor) -> None:
        """Drops all rows but `rows`; `index` is the same on the device. Keys of dropped rows are
        freed; those of prompts without a row, once they are a quarter of the prompts."""
        for layer, (keys, values) in self._own.items():
            self._own[layer] = self._kept(keys, index), self._kept(values, index)
        self._owner = [self._owner[i] for i in rows]
        used = sorted(set(self._owner))
        if len(used) < 0.75 * len(self._lengths):
            place = {prompt: i for i, prompt in enumerate(used)}
            self._lengths = [self._lengths[prompt] for prompt in used]
            self._owner = [place[prompt] for prompt in self._owner]
            longest = max(self._lengths)
            chosen = torch.tensor(used, device=index.device)
            for layer, (keys, values) in self._prompts.items():
                self._prompts[layer] = keys[chosen, :, :longest], values[chosen, :, :longest]
        self._lay_out()

    def _lay_out(self) -> None:
        """Rows of a prompt sit side by side in `width` places, so that all of them meet its keys
        in one matrix product; prompts with fewer rows leave places empty."""
        rows = [0] * len(self._lengths)
        places = []
        for prompt in self._owner:
            places.append((prompt, rows[prompt]))
            rows[prompt] += 1
        device = next(iter(self._prompts.values()))[0].device
        self._width = max(rows)
        self._place = None
        if min(rows) < self._width:
            flat = [prompt * self._width + i for prompt, i in places]
            self._place = torch.tensor(flat, device=device)
        self._pad_bias = None
        longest = max(self._lengths)
        if min(self._lengths) < longest:
            column = torch.arange(longest, device=device)
            real = column < torch.tensor(self._lengths, device=device)[:, None]
            self._pad_bias = torch.zeros(real.shape, device=device).masked_fill_(~real, -torch.inf)
        self._pad_bias_heads = None

    def _bias(self, kv_heads: int) -> Tensor | None:
        """[P * Hk, 1, L]: -inf at padding; None if no prompt is padded."""
        if self._pad_bias is not None and self._pad_bias_heads is None:
            self._pad_bias_heads = self._pad_bias.repeat_interleave(kv_heads, 0)[:, None]
        return self._pad_bias_heads

    def _by_prompt(self, rows: Tensor) -> Tensor:
        """[N, Hk, R, D] -> [P * Hk, width * R, D]; R query heads share a key head."""
        if self._place is not None:
            places = rows.new_zeros((len(self._lengths) * self._width, *rows.shape[1:]))
            rows = places.index_copy_(0, self._place, rows)
        _, kv_heads, repeat, dim = rows.shape
        if self._width > 1:
            rows = rows.view(-1, self._width, kv_heads, repeat, dim).transpose(1, 2)
        return rows.reshape(-1, self._width * repeat, dim)

    def _by_row(self, places: Tensor, shape: Sequence[int]) -> Tensor:
        """The way back: [P * Hk, width * R, D] -> `shape` = [N, Hk, R, D]."""
        _, kv_heads, repeat, dim = shape
        if self._width == 1:
            rows = places.view(-1, kv_heads, repeat, dim)
        else:
            rows = places.view(-1, kv_heads, self._width, repeat, dim).transpose(1, 2)
            rows = rows.reshape(-1, kv_heads, repeat, dim)
        return rows if self._place is None else rows[self._place]

    def _grown(self, own: Tensor) -> Tensor:
        larger = own.new_empty((own.shape[0], self._capacity, own.shape[2]))
        larger[:, : self._used] = own[:, : self._used]
        return larger

    def _kept(self, own: Tensor, index: Tensor) -> Tensor:
        own = own.view(len(self._owner), -1, *own.shape[1:])
        kept = own.new_empty((len(index), *own.shape[1:]))
        kept[:, :, : self._used] = own[index, :, : self._used]
        return kept.flatten(0, 1)


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attention over one part of the keys: query [B, M, D] (scaled), keys and values [B, L, D].
    Returns f32 [B, M, D] and the log of the softmax's denominator, f32 [B, M, 1]."""
    scores = torch.bmm(query, keys.transpose(1, 2)).float()
    if bias is not None:
        scores += bias
    shares = scores.softmax(-1)
    # The best key's share is exp(score - mass), and at least 1/L: its log is exact.
    mass = scores.amax(-1, keepdim=True) - shares.amax(-1, keepdim=True).log()
    return torch.bmm(shares.to(values.dtype), values).float(), mass
