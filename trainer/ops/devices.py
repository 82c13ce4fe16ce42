"""What a device computes fast."""

from __future__ import annotations

import torch


def fast_dtype(device: torch.device | str) -> str:
    """`bfloat16` on a GPU with instructions for it, else `float32`. Never bfloat16 on a CPU:
    without such instructions it is several times slower, and a run would depend on the machine."""
    fast = torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    return "bfloat16" if fast else "float32"


def compute_dtype(setting: str, device: torch.device | str) -> str:
    """What the setting `auto`, `float32` or `bfloat16` means on a device."""
    return fast_dtype(device) if setting == "auto" else setting
