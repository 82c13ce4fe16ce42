"""A low-rank adapter on its way to an engine, and as the folder that peft and vLLM read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainer.ops.merging import gathered

if TYPE_CHECKING:
    from torch import Tensor, nn

_PREFIX = "base_model.model."
"""Of every name in peft's files."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """W + alpha / rank * B @ A for some linear layers."""

    rank: int
    alpha: int
    weights: Callable[[], Iterator[tuple[str, Tensor]]]
    """`layers.0.q_proj.lora_A.weight` [rank, in] and `...lora_B.weight` [out, rank], by the names
    of the model without adapters."""


def adapter_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Those of peft's layers in `model`. Sharded tensors are gathered, so every process of a
    sharded run must iterate."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        if ".lora_A." in name or ".lora_B." in name:
            module, _, rest = name.partition(".lora_")
            yield f"{module}.lora_{rest[0]}.weight", gathered(tensor.detach())


def write_adapter(adapter: Adapter, folder: Path, *, dtype: str) -> int:
    """Makes `folder`; returns the bytes of its tensors."""
    from safetensors.torch import save_file

    kind = getattr(torch, dtype)
    tensors = {
        f"{_PREFIX}{name}": weight.to("cpu", kind).contiguous()
        for name, weight in adapter.weights()
    }
    layers = {name.rpartition(".lora_")[0].rpartition(".")[2] for name in tensors}
    config = {
        "peft_type": "LORA",
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "target_modules": sorted(layers),
        "bias": "none",
    }
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "adapter_model.safetensors")
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
