"""The servers as vLLM's own weight senders (NCCL, CUDA IPC) want to see them: four plain calls,
made from a thread, that reach all servers at once."""

from __future__ import annotations

import asyncio
import base64
import pickle
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Post = Callable[[int, str, Any], Awaitable[Any]]
"""(index of a server, path, JSON body) -> its answer."""


class TransferClient:
    """The methods of vLLM's `VLLMWeightSyncClient`, a protocol without a base class."""

    def __init__(self, native: str, worlds: Sequence[int], version: int, post: Post, peers: object):
        """`worlds`: processes of each server. `peers` is equal for equal sets of running servers:
        a group of processes that was formed with others is of no use."""
        self.native, self.worlds, self.version, self.peers = native, list(worlds), version, peers
        self._post, self._loop = post, asyncio.get_running_loop()

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Each server's processes get ranks of their own, behind those of the servers before."""
        offset = init_info.get("rank_offset", 0)
        bodies = []
        for world in self.worlds:
            info = (
                init_info
                if "rank_offset" not in init_info
                else {**init_info, "rank_offset": offset}
            )
            bodies.append({"init_info": {"native": self.native, "info": info}})
            offset += world
        self._all("/init_weight_transfer_engine", bodies)

    def start_weight_update(self) -> None:
        self._all("/start_weight_update", [None] * len(self.worlds))

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """CUDA IPC handles are no JSON: they go pickled, as vLLM's own client sends them."""
        handles = update_info.get("ipc_handles")
        if handles is not None:
            rest = {key: value for key, value in update_info.items() if key != "ipc_handles"}
            pickled = base64.b64encode(pickle.dumps(handles)).decode("ascii")
            update_info = {**rest, "ipc_handles_pickled": pickled}
        self._all("/update_weights", [{"update_info": update_info}] * len(self.worlds))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        name = str(self.version) if weight_version is None else weight_version
        self._all("/finish_weight_update", [{"weight_version": name}] * len(self.worlds))

    def _all(self, path: str, bodies: Sequence[Any]) -> None:
        async def post() -> None:
            await asyncio.gather(*(self._post(i, path, body) for i, body in enumerate(bodies)))

        asyncio.run_coroutine_threadsafe(post(), self._loop).result()
