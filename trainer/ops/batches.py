"""Rows of a `Batch`: taking some, and putting several batches together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor
from torch.nn.functional import pad

from trainer.types import Batch

_PADDING = {"turn": -1, "version": -1}


def take(batch: Batch, rows: Sequence[int]) -> Batch:
    """The rows at these places, in this order; T stays."""
    index = torch.tensor(rows, dtype=torch.long, device=batch.tokens.device)
    changes: dict[str, object] = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, dict):
            changes[field.name] = {name: tensor[index] for name, tensor in value.items()}
        elif isinstance(value, Tensor):
            changes[field.name] = value[index]
    return batch.with_(**changes, inputs=tuple(batch.inputs[i] for i in rows if batch.inputs))


def merge(batches: Sequence[Batch]) -> Batch:
    """One batch with the rows of all, model inputs left out.

    Rows are padded to the longest T. Group and rollout ids are shifted so that those of two
    batches never meet. A reward part that a batch lacks is NaN there, an `extra` 0; any other
    optional field must be set in all batches or in none.
    """
    width = max(b.tokens.shape[1] for b in batches)
    merged: dict[str, object] = {}
    for field in fields(Batch):
        values = [getattr(b, field.name) for b in batches]
        if field.name == "inputs":
            merged["inputs"] = ()
        elif field.name == "parts":
            merged["parts"] = {
                name: torch.cat([_part(b, name) for b in batches])
                for name in sorted({name for v in values for name in v})
            }
        elif field.name == "extra":
            merged["extra"] = {
                name: torch.cat([_widen(_extra(b, name, values), width, 0) for b in batches])
                for name in sorted({name for v in values for name in v})
            }
        elif field.name in ("group", "rollout"):
            merged[field.name] = torch.cat(_apart(values))
        elif values[0] is not None:
            fill = _PADDING.get(field.name, 0)
            merged[field.name] = torch.cat([_widen(v, width, fill) for v in values])
    return Batch(**merged)  # type: ignore[arg-type]


def _widen(values: Tensor, width: int, fill: int) -> Tensor:
    return values if values.dim() == 1 else pad(values, (0, width - values.shape[1]), value=fill)


def _part(batch: Batch, name: str) -> Tensor:
    missing = torch.full((len(batch.tokens),), float("nan"), device=batch.tokens.device)
    return batch.parts.get(name, missing)


def _extra(batch: Batch, name: str, found: Sequence[dict[str, Tensor]]) -> Tensor:
    if name in batch.extra:
        return batch.extra[name]
    example = next(extra[name] for extra in found if name in extra)
    return torch.zeros_like(batch.tokens, dtype=example.dtype)


def _apart(ids: Sequence[Tensor]) -> list[Tensor]:
    shifted, offset = [], 0
    for values in ids:
        shifted.append(values + offset)
        offset += int(values.max()) + 1 if len(values) else 0
    return shifted
