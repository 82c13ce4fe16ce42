"""A few numbers that tell two weights apart, also where one of them can only be multiplied with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

_HEADS = ("lm_head.weight",)
_EMBEDDING = "embed_tokens.weight"


def probe_vector(n: int) -> Tensor:
    """f[n]: fixed random numbers, of length about 1."""
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, generator=generator) / n**0.5


def sketch(weight: Tensor) -> Tensor:
    """A matrix [m, n] times a fixed vector, f[m]; anything else flattened to rows first, and a
    vector as it is."""
    weight = weight.detach().float().cpu()
    if weight.ndim < 2:
        return weight.reshape(-1)
    rows = weight.flatten(1)
    return rows @ probe_vector(rows.shape[1])


def read_back(model: nn.Module, name: str) -> Tensor | None:
    """`sketch` of a weight inside a vLLM model, by transformers' name: of what it multiplies with,
    which may be a packed copy that nothing else can read. None if it cannot be told (sharded,
    quantised, unknown)."""
    last = name.split(".")[-2]
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    if mapper is not None:
        name = (mapper.apply_list([name]) or [name])[0]
    path, _, kind = name.rpartition(".")
    part = None
    for fused, pieces in getattr(model, "packed_modules_mapping", {}).items():
        if last in pieces and len(pieces) > 1:
            path, part = f"{path.rpartition('.')[0]}.{fused}", pieces.index(last)
    try:
        module: Any = model.get_submodule(path)
    except AttributeError:
        return None
    weight = getattr(module, kind, None)
    if weight is None or getattr(module, "tp_size", 1) > 1:
        return None
    if kind == "weight" and hasattr(module, "cpu_linear"):
        width = getattr(module, "input_size", None) or module.embedding_dim
        value = module.cpu_linear(probe_vector(width)[None].to(weight.dtype), weight, None)[0]
    else:
        value = sketch(weight)
    if part is not None:
        sizes = list(module.output_partition_sizes)
        value = value.split(sizes)[part] if sum(sizes) == len(value) else None
    return value


def most_different(
    ours: Iterable[tuple[str, Tensor]], theirs: Mapping[str, list[float]]
) -> tuple[str, float] | None:
    """(name, relative difference) of the weight that an engine's sketch misses by most; None if
    nothing could be compared. A head the policy does not list is tied to the embedding."""
    gaps: dict[str, float] = {}
    heads = [name for name in _HEADS if name in theirs]
    embedding: Tensor | None = None
    for name, weight in ours:
        mine = sketch(weight)
        if name in theirs:
            gaps[name] = _gap(mine, theirs[name])
        if name.endswith(_EMBEDDING):
            embedding = mine
    for head in heads:
        if head not in gaps and embedding is not None:
            gaps[head] = _gap(embedding, theirs[head])
    return max(gaps.items(), key=lambda item: item[1], default=None)


def _gap(mine: Tensor, theirs: list[float]) -> float:
    other = torch.tensor(theirs)
    if len(other) < len(mine) or not torch.isfinite(other).all():
        return float("inf")
    other = other[: len(mine)]  # vLLM pads vocabularies
    return float((other - mine).norm() / mine.norm().clamp_min(1e-12))
