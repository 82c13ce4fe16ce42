"""What a row has already seen, kept so that one forward pass per token is enough.

`SharedCache` computes and stores a prompt once for all its rows, through `ops.decoding`.
`DynamicCaches` uses transformers' own cache, for architectures whose attention cannot be replaced
(sliding windows, recurrent layers). Both have `start`, `step` and `keep`, so that the sampling
loop in `ops.generation` does not know which one it drives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from trainer.ops.decoding import Decode, Prefill, join

PACK_TOKENS = 16384
"""Prompt tokens per forward pass: bounds the memory of activations."""


@dataclass(frozen=True, slots=True)
class PromptPath:
    """A token path: what a prompt is to the model."""

    tokens: list[int]
    positions: Tensor  # i[k, n], k = 1 for text, 3 for multimodal rotary positions
    inputs: dict[str, Any] = field(default_factory=dict)
    """pixel_values f[patches, d], image_grid_thw i[images, 3], ..."""


class Cache(Protocol):
    """N rows in decoding; row i continues path `owner[i]`."""

    def start(self) -> Tensor:
        """Reads the prompts. Returns the logits [N, V] of each row's first token."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Takes each row's newest token i[N]; returns the logits [N, V] of the next one."""
        ...

    def keep(self, rows: Sequence[int], index: Tensor) -> None:
        """Drops all rows but `rows`; `index` is the same on the device."""
        ...


def packs(lengths: Sequence[int], budget: int = PACK_TOKENS) -> list[list[int]]:
    """Consecutive indices of `lengths`, cut so that no pack exceeds `budget`; a longer item gets
    its own pack."""
    found: list[list[int]] = []
    room = 0
    for i, length in enumerate(lengths):
        if not found or length > room:
            found.append([])
            room = budget
        found[-1].append(i)
        room -= length
    return found


def forward(
    model: PreTrainedModel, paths: Sequence[PromptPath], plan: Prefill, keep: Sequence[int] | None
) -> Tensor:
    """One forward pass over packed `paths`. Returns logits [S, V] of the packed tokens `keep`, or
    of all where it is None."""
    device = model.device
    extra = {} if keep is None else {"logits_to_keep": torch.tensor(keep, device=device)}
    return model(
        input_ids=torch.tensor([[t for path in paths for t in path.tokens]], device=device),
        position_ids=stacked([path.positions[:, None] for path in paths], -1, device),
        attention_plan=plan,
        use_cache=False,
        **model_inputs(paths, device),
        **extra,
    ).logits[0]


def model_inputs(paths: Sequence[PromptPath], device: torch.device) -> dict[str, Tensor]:
    """Images of all paths in order, by the model's argument names."""
    names = {name: None for path in paths for name in path.inputs}
    return {
        name: torch.cat([p.inputs[name] for p in paths if name in p.inputs]).to(device)
        for name in names
    }


def stacked(positions: list[Tensor], dim: int, device: torch.device) -> Tensor:
    """[k, B, n] for multimodal positions, [B, n] where k is 1: what transformers expects."""
    stacked = torch.cat(positions, dim).to(device)
    return stacked[0] if len(stacked) == 1 else stacked


class SharedCache:
    """Prompts packed without padding, read once, stored once."""

    def __init__(
        self, model: PreTrainedModel, paths: Sequence[PromptPath], owner: Sequence[int], most: int
    ):
        """`owner` ascends; `most`: tokens a row can get."""
        self._model, self._paths, self._owner, self._most = model, paths, owner, most
        first = torch.tensor([int(paths[i].positions.max()) + 1 for i in owner])
        self._next = first.to(model.device)[:, None]
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._last_position = 2**31 if limit is None else limit - 1

    def start(self) -> Tensor:
        logits, prefills = [], []
        for pack in packs([len(path.tokens) for path in self._paths]):
            paths = [self._paths[i] for i in pack]
            plan = Prefill([len(path.tokens) for path in paths], self._model.device)
            logits.append(forward(self._model, paths, plan, plan.ends))
            prefills.append(plan)
        self._plan = Decode(*join(prefills), self._owner, self._most)
        return torch.cat(logits)[torch.tensor(self._owner, device=self._model.device)]

    def step(self, tokens: Tensor) -> Tensor:
        # Rows that have ended may still be carried along: they must not leave the table.
        positions = self._next.clamp(max=self._last_position)
        logits = self._model(
            input_ids=tokens[:, None],
            position_ids=positions,
            attention_plan=self._plan,
            use_cache=False,
        ).logits[:, -1]
        self._next = self._next + 1
        self._plan.advance()
        return logits

    def keep(self, rows: Sequence[int], index: Tensor) -> None:
        self._next = self._next[index]
        self._plan.keep(rows, index)


class DynamicCaches:
    """One `DynamicCache` per prompt length, so that no row is ever padded: windows and recurrent
    states then see exactly what they would see alone."""

    def __init__(
        self, model: PreTrainedModel, paths: Sequence[PromptPath], owner: Sequence[int], most: int
    ):
        self._model = model
        self._n = len(owner)
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._last_position = 2**31 if limit is None else limit - 1
        by_length: dict[int, list[int]] = {}
        for i, path in enumerate(paths):
            by_length.setdefault(len(path.tokens), []).append(i)
        self._batches = [
            _LengthBatch(model, [paths[i] for i in members], members, owner)
            for members in by_length.values()
        ]

    def start(self) -> Tensor:
        return self._gather([batch.start() for batch in self._batches])

    def step(self, tokens: Tensor) -> Tensor:
        return self._gather([batch.step(tokens, self._last_position) for batch in self._batches])

    def _gather(self, parts: list[Tensor]) -> Tensor:
        out = parts[0].new_empty((self._n, parts[0].shape[-1]))
        for batch, part in zip(self._batches, parts, strict=True):
            out[batch.index] = part
        return out

    def keep(self, rows: Sequence[int], index: Tensor) -> None:
        place = {row: i for i, row in enumerate(rows)}
        self._n = len(rows)
        self._batches = [batch for batch in self._batches if batch.keep(place)]


class _LengthBatch:
    """Rows whose prompts have the same length."""

    def __init__(
        self,
        model: PreTrainedModel,
        paths: list[PromptPath],
        members: list[int],
        owner: Sequence[int],
    ):
        self._model, self._paths = model, paths
        place = {member: i for i, member in enumerate(members)}
        self._rows = [row for row, path in enumerate(owner) if path in place]
        self._path_of_row = self._tensor([place[owner[row]] for row in self._rows])
        self._cache = DynamicCache(config=model.config)
        self.index = self._tensor(self._rows)

    def _tensor(self, numbers: list[int] | list[list[int]]) -> Tensor:
        return torch.tensor(numbers, device=self._model.device)

    def start(self) -> Tensor:
        device = self._model.device
        logits = self._model(
            input_ids=self._tensor([path.tokens for path in self._paths]),
            position_ids=stacked([path.positions[:, None] for path in self._paths], 1, device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
            **model_inputs(self._paths, device),
        ).logits[:, -1]
        first = self._tensor([int(path.positions.max()) + 1 for path in self._paths])
        self._next = first[self._path_of_row][:, None]
        self._cache.batch_select_indices(self._path_of_row)
        return logits[self._path_of_row]

    def step(self, tokens: Tensor, last_position: int) -> Tensor:
        logits = self._model(
            input_ids=tokens[self.index][:, None],
            position_ids=self._next.clamp(max=last_position),
            past_key_values=self._cache,
            use_cache=True,
        ).logits[:, -1]
        self._next = self._next + 1
        return logits

    def keep(self, place: dict[int, int]) -> bool:
        """`place`: new row number by old; True if a row is left."""
        kept = [i for i, row in enumerate(self._rows) if row in place]
        index = self._tensor(kept)
        self._rows = [place[self._rows[i]] for i in kept]
        if not kept:
            return False
        self._next = self._next[index]
        self._cache.batch_select_indices(index)
        self.index = self._tensor(self._rows)
        return True
