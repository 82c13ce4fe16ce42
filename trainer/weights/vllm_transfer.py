"""Weights travel to vLLM servers through vLLM's weight-transfer API, then the probe checks them.

With `policy.lora` and an engine that takes adapters (`engine.max_lora_rank`) only the adapter
travels, under a new name for every version: vLLM keys what it caches by that name.

`nccl` and `ipc` are vLLM's own senders and need GPUs; they are written against vLLM 0.32 and have
not been run: what they say to a server is tested, what moves the bytes is not.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr

from trainer.errors import ConfigError
from trainer.weights.base import Publisher

if TYPE_CHECKING:
    from trainer.engines.base import Engine
    from trainer.ops.transfer_client import TransferClient
    from trainer.policies.base import Policy
    from trainer.weights.base import Row


class VllmTransfer(Publisher):
    transport: Literal["files", "nccl", "ipc"] = "files"
    """`files`: safetensors in memory of this node or in `engine.transfer_folder`; a server that
    comes back reads them too. `nccl`: broadcast over the network of the GPUs; a server that comes
    back waits for the next sync. `ipc`: trainer and server share a GPU."""
    address: str = "127.0.0.1"
    """Of this node, as servers see it; for `nccl`."""
    port: int = Field(51216, gt=0, lt=65536)
    """Where the `nccl` group meets."""
    bucket_mib: int = Field(512, gt=0)
    """Size of the packed buffers of `nccl` and `ipc`."""

    _sender: Any = PrivateAttr(None)
    _peers: Any = PrivateAttr(None)

    async def publish(
        self, policy: Policy, engine: Engine, version: int, probe: list[Row]
    ) -> dict[str, float]:
        """Raises EngineError if the engine has no servers (for `nccl` and `ipc`), ConfigError for
        an adapter of a rank that it does not take."""
        adapter = policy.adapter() if engine.adapter_rank and self.transport == "files" else None
        if adapter is not None:
            if adapter.rank > engine.adapter_rank:
                raise ConfigError(
                    f"policy.lora.rank: {adapter.rank} is above engine.max_lora_rank "
                    f"{engine.adapter_rank}: raise engine.max_lora_rank"
                )
            await engine.load_adapter(partial(policy.weights, merge=False), adapter, version)
        elif self.transport == "files":
            await engine.load(policy.weights(), version)
        else:
            dtype = engine.precision
            await engine.load_through(
                self.transport, lambda client: self._send(client, policy, dtype), version
            )
        return {"sync/probe_gap": await self.prove(policy, engine, version, probe)}

    def _send(self, client: TransferClient, policy: Policy, dtype: str) -> None:
        """In a thread. The group of processes is formed anew when a server came or went."""
        from trainer.vllm_adapter.sender import native_sender

        if self._sender is None or client.peers != self._peers:
            self._sender, self._peers = None, client.peers
            self._sender = native_sender(
                self.transport,
                policy.weights,
                dtype,
                client,
                address=self.address,
                port=self.port,
                buffer_bytes=self.bucket_mib * 2**20,
            )
        self._sender.client = client
        self._sender.send_weights()
