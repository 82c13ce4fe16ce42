"""From rows of a batch to what a transformers model is called with, and back."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from trainer.errors import DataError
from trainer.ops.packing import PackedPlan, Path, pack
from trainer.ops.positions import continue_positions, prompt_positions

if TYPE_CHECKING:
    from torch import nn

    from trainer.types import Batch


@dataclass(frozen=True, slots=True)
class Row:
    """What is asked for: log-probs of `tokens[actions]`, given everything before them."""

    tokens: Tensor  # i[n] on the CPU
    actions: Tensor  # i[m] rising positions, none of them 0
    inputs: dict[str, Any]
    group: int


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of one forward pass, on the CPU."""

    model: dict[str, Any]
    index: list[Tensor]
    """Per row i[n]: where its hidden states are, counted through all of them."""
    images: list[int]
    """Rows whose images the model needs, in this order."""
    plan: Callable[[str], PackedPlan] | None
    """Makes the attention plan on a device; None for padded rows."""


def batch_rows(batch: Batch, picked: Sequence[int]) -> list[Row]:
    """Raises DataError for a row that sampled its first token: nothing predicts it."""
    tokens, mask = batch.tokens.cpu(), batch.mask.cpu()
    lengths, groups = batch.length.tolist(), batch.group.tolist()
    rows = []
    for i in picked:
        actions = mask[i, : lengths[i]].nonzero()[:, 0]
        if len(actions) and not actions[0]:
            raise DataError(f"row {i}: its first token is sampled, but no token comes before it")
        inputs = batch.inputs[i] if batch.inputs else {}
        rows.append(Row(tokens[i, : lengths[i]], actions, inputs, groups[i]))
    return rows


def row_paths(rows: Sequence[Row], pinned: Callable[[Row], int], reach: int = 0) -> list[Path]:
    """What must be computed of each row: nothing from `reach` after the last action on. Rows
    of a group with the same images, by identity or value, are a family."""
    images: dict[int, list[dict[str, Any]]] = {}
    paths = []
    for row in rows:
        known = images.setdefault(row.group, [])
        number = next((i for i, other in enumerate(known) if _same(row.inputs, other)), len(known))
        if number == len(known):
            known.append(row.inputs)
        first = pinned(row)
        end = max(int(row.actions[-1]) + reach if len(row.actions) else 0, first, 1)
        paths.append(Path(row.tokens[:end], (row.group, number), first))
    return paths


def arrange(model: nn.Module, rows: Sequence[Row], paths: Sequence[Path], *, packing: str) -> Call:
    """Lays `paths` (of `rows`) out for the transformers model `model`; `packing` as in
    `Policy.packing`."""
    positions = _positions(model, rows, paths)
    if packing == "padded":
        return _padded(paths, positions)
    packed = pack(paths, share=packing == "shared")
    ids = packed.arrange(positions)  # [k, L]
    return Call(
        model={
            "input_ids": packed.tokens[None],
            "position_ids": ids if len(ids) == 1 else ids[:, None],
        },
        index=packed.index,
        images=packed.roots,
        plan=lambda device: PackedPlan(packed, device),
    )


def scatter(values: Tensor, rows: Sequence[Row], width: int) -> Tensor:
    """[rows, width] with `values` f[sum of actions] at the actions, 0 elsewhere."""
    counts = torch.tensor([len(row.actions) for row in rows])
    where = torch.arange(len(rows)).repeat_interleave(counts).to(values.device)
    at = torch.cat([row.actions for row in rows]).to(values.device)
    return values.new_zeros(len(rows), width).index_put((where, at), values)


def _padded(paths: Sequence[Path], positions: list[Tensor]) -> Call:
    tokens = pad_sequence([path.tokens for path in paths], batch_first=True)
    mask = pad_sequence([torch.ones_like(path.tokens) for path in paths], batch_first=True)
    ids = pad_sequence([p.T for p in positions], batch_first=True).permute(2, 0, 1)  # [k, N, T]
    width = tokens.shape[1]
    return Call(
        model={
            "input_ids": tokens,
            "attention_mask": mask,
            "position_ids": ids[0] if len(ids) == 1 else ids,
        },
        index=[i * width + torch.arange(len(path.tokens)) for i, path in enumerate(paths)],
        images=list(range(len(paths))),
        plan=None,
    )


def _positions(model: nn.Module, rows: Sequence[Row], paths: Sequence[Path]) -> list[Tensor]:
    """i[k, n] per path. Beginnings with images, which are slow to count, are counted once."""
    known: dict[Hashable, Tensor] = {}
    found = []
    for row, path in zip(rows, paths, strict=True):
        head = path.tokens[: max(path.pinned, 1)]
        key = (path.family, tuple(head.tolist())) if path.pinned else None
        if key not in known:
            known[key] = prompt_positions(model, head, row.inputs if path.pinned else {})
        more = continue_positions(known[key], len(path.tokens) - len(head))
        found.append(torch.cat([known[key], more], 1))
    return found


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a is b or (
        a.keys() == b.keys()
        and all(x is b[name] or torch.equal(x, b[name]) for name, x in a.items())
    )
