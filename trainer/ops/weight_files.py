"""A set of weights as a row of safetensors files, written one after the other."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def write_buckets(
    weights: Iterable[tuple[str, Tensor]], folder: Path, *, dtype: str, limit: int
) -> Iterator[Path]:
    """Files `00000.safetensors`, ... of about `limit` bytes each (a larger tensor gets its own),
    floating-point values in `dtype`. At most one bucket is in memory besides the files."""
    from safetensors.torch import save_file

    target = getattr(torch, dtype)
    folder.mkdir(parents=True)
    for number, bucket in enumerate(_buckets(weights, target, limit)):
        path = folder / f"{number:05d}.safetensors"
        save_file(bucket, path)
        yield path


def _buckets(
    weights: Iterable[tuple[str, Tensor]], target: torch.dtype, limit: int
) -> Iterator[dict[str, Tensor]]:
    bucket: dict[str, Tensor] = {}
    size = 0
    for name, weight in weights:
        dtype = target if weight.is_floating_point() else weight.dtype
        tensor = weight.detach().to("cpu", dtype).contiguous()
        bytes_ = tensor.numel() * tensor.element_size()
        if bucket and size + bytes_ > limit:
            yield bucket
            bucket, size = {}, 0
        bucket[name] = tensor
        size += bytes_
    if bucket:
        yield bucket


def remove(folder: Path) -> None:
    """Also if it is not there."""
    shutil.rmtree(folder, ignore_errors=True)
