"""The weights of a model as its architecture names them, low-rank adapters merged in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_BASE = ".base_layer"


@torch.no_grad()
def merged_weights(model: nn.Module, *, merge: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Yields (name, tensor) of a transformers model that may hold peft's LoRA layers.

    A layer with an adapter gives W + scale * B @ A, or W without `merge`; the model itself does not
    change and one merged tensor exists at a time. Names are those of the model without adapters.
    Tied weights come once, under their first name. Sharded tensors are gathered, so every process
    of a sharded run must iterate.
    """
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in seen or ".lora_" in name:
            continue
        seen.add(id(tensor))
        weight = gathered(tensor.detach())
        owner, _, attribute = name.rpartition(".")
        if owner.endswith(_BASE):
            layer: Any = model.get_submodule(owner.removesuffix(_BASE))
            if attribute == "weight" and merge:
                for adapter in layer.active_adapters:
                    weight = weight + gathered(layer.get_delta_weight(adapter)).to(weight.dtype)
        yield name.replace(f"{_BASE}.", "."), weight


def gathered(tensor: Any) -> Tensor:
    """The whole of a tensor that may be sharded over processes."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
