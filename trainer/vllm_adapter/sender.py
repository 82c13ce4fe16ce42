"""vLLM's own senders, NCCL and CUDA IPC, fed with a policy's weights. They need GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

if TYPE_CHECKING:
    from torch import Tensor


class _Source(WeightSource):
    """A policy's weights as vLLM's senders read them, in the engine's precision."""

    def __init__(self, weights: Callable[[], Iterable[tuple[str, Tensor]]], dtype: str):
        self._weights, self._dtype = weights, getattr(torch, dtype)

    def metadata(self) -> list[ParamMeta]:
        return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in self._weights():
            yield name, weight.detach().to(self._dtype)


def native_sender(
    native: str,
    weights: Callable[[], Iterable[tuple[str, Tensor]]],
    dtype: str,
    client: Any,
    *,
    address: str,
    port: int,
    buffer_bytes: int,
) -> Any:
    """vLLM's trainer side of `nccl` or `ipc`, connected: call its `send_weights()`. Needs GPUs."""
    source = _Source(weights, dtype)
    info: Any
    if native == "nccl":
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        world = 1 + sum(client.worlds)
        info = NCCLTrainerInitInfo(address, port, world, True, buffer_bytes, rank=0)
    else:
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

        info = IPCTrainerInitInfo(True, buffer_bytes, rank=0)
    return WeightTransferTrainerFactory.trainer_init(info, client=client, source=source)
