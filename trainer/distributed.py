"""Processes of one run: a thin layer over accelerate, which owns groups and wrappers.

A launch by `torchrun` or `accelerate launch` sets the environment that decides the world; without
it there is one process and no process group at all.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, InitProcessGroupKwargs
from torch import Tensor, nn

from trainer.errors import CohortError, ConfigError

_SHARDED = {DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM}


class Distributed:
    """What the learner and the loop may ask of the other processes. Every method with a
    collective inside must be called by all processes in the same order."""

    def __init__(self, accelerator: Accelerator):
        self._accelerator = accelerator
        self._prepared = 0
        self.rank: int = accelerator.process_index
        self.world: int = accelerator.num_processes
        self.device: torch.device = accelerator.device

    @classmethod
    def start(cls, *, cpu: bool | None = None, timeout: float = 1800.0) -> Distributed:
        """Joins the other processes of the launch, if there are any.

        `cpu` None uses the accelerator where torch sees one. `timeout`: seconds any process may
        keep the others waiting before the run ends with an error.
        """
        if cpu is None:
            cpu = not torch.accelerator.is_available()
        handlers = [
            InitProcessGroupKwargs(timeout=timedelta(seconds=timeout)),
            # Ranks run different numbers of forwards, so a forward must not hold a collective.
            DistributedDataParallelKwargs(broadcast_buffers=False),
        ]
        # The policy alone decides the precision; "no" keeps a launcher's default out of it.
        return cls(Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=handlers))

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """True where a single forward is already collective (FSDP, DeepSpeed)."""
        return self._accelerator.distributed_type in _SHARDED

    def prepare(
        self, module: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The module and its optimiser, wrapped for this launch; rank 0's weights win. Raises
        `ConfigError` for a second model under DeepSpeed, which has one engine per process."""
        if self._accelerator.distributed_type == DistributedType.DEEPSPEED and self._prepared:
            raise ConfigError(
                "this run trains more than one model (a critic, a co-trained reward), which "
                "DeepSpeed cannot: launch with DDP or FSDP, or for a critic use policy: "
                "{head: both} with the modifier `value`"
            )
        self._prepared += 1
        with warnings.catch_warnings():
            # The new name still copies buffers at the start; `broadcast_buffers` alone never does.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return self._accelerator.prepare(module, optimizer)

    def unwrap(self, module: nn.Module) -> nn.Module:
        return self._accelerator.unwrap_model(module)

    def backward(self, loss: Tensor) -> None:
        """Gradients are averaged over processes, unless inside `no_sync`."""
        self._accelerator.backward(loss)

    def no_sync(self, module: nn.Module) -> AbstractContextManager[None]:
        """Forward and backward in here only add to the gradients of this process."""
        return self._accelerator.no_sync(module)

    def clip_grad_norm(self, parameters: Iterable[nn.Parameter], limit: float | None) -> float:
        """Scales gradients to norm `limit` if above it; returns the norm before. None: no
        scaling."""
        bound = float("inf") if limit is None else limit
        norm = self._accelerator.clip_grad_norm_(parameters, bound)
        return 0.0 if norm is None else float(norm)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Sum over processes, as a new tensor on the device of `values`."""
        if self.world == 1:
            return values.clone()
        total = values.to(self.device, copy=True)  # NCCL knows no other device
        torch.distributed.all_reduce(total)
        return total.to(values.device)

    def gather_objects(self, value: Any) -> list[Any]:
        """What each process gave, by rank, on every process. Must be picklable."""
        if self.world == 1:
            return [value]
        gathered: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(gathered, value)
        return gathered

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's value, on every process."""
        if self.world == 1:
            return value
        holder = [value]
        torch.distributed.broadcast_object_list(holder, src=0)
        return holder[0]

    def barrier(self, name: str) -> None:
        """Waits for all processes; `name` says in the error what they were waiting for."""
        if self.world == 1:
            return
        try:
            self._accelerator.wait_for_everyone()
        except RuntimeError as error:
            raise CohortError(
                f"rank {self.rank} waited at {name!r} for the other processes, and they did not "
                f"come: {error}"
            ) from error

    def close(self) -> None:
        """Leaves the process group."""
        if self.world > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
