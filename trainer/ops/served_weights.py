"""The weights of a fleet of vLLM servers: how they get there, and what a server that comes back is
given. Replies being written are paused during a sync and go on with the new weights; an adapter is
new under a new name, and a reply ends with the one it began with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import EngineError
from trainer.ops.fleet import Fleet
from trainer.ops.member import Member, MemberFault
from trainer.ops.transfer_client import TransferClient
from trainer.ops.vllm_replies import largest_gap

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.ops.adapters import Adapter

Rows = list[tuple[list[int], dict[str, Any]]]
Scores = list[list[float]]

_REFUSED = "add_lora method failed"
"""In vLLM's answer (500) to an adapter that is wrong; the server itself is well."""
AGREE = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.1}
"""Nats by which two servers with the same weights may differ."""


@dataclass(slots=True)
class _Loaded:
    """An adapter that servers have."""

    name: str
    folder: Path
    readers: int = 0
    """Replies being written with it."""


class ServedWeights:
    """`fleet` is set once, before the first use."""

    fleet: Fleet

    def __init__(
        self,
        folder: Path,
        *,
        precision: str,
        bucket: int,
        banned: Sequence[int],
        images: bool,
    ):
        """`folder`: where the weights of the current version lie, for servers that come back;
        `bucket`: bytes of one file."""
        self._folder, self._bucket = folder, bucket
        self.precision, self._banned, self._images = precision, list(banned), images
        self.version: int | None = None
        """None before the first sync."""
        self.proof: tuple[Rows, Scores] | None = None
        """What the servers said of the probe with the current weights."""
        self._paths: list[Path] = []
        self._bare = False
        """What `_paths` has are the weights below the adapters."""
        self._current: _Loaded | None = None
        self._adapters: list[_Loaded] = []
        """The current one, and older ones that still have readers."""
        self._number = count()  # of loads: one version may be sent twice

    @property
    def adapter(self) -> str | None:
        """What a request names to get the current weights."""
        return None if self._current is None else self._current.name

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While a reply is being written: its adapter stays."""
        loaded = self._current
        if loaded is None:
            yield
            return
        loaded.readers += 1
        try:
            yield
        finally:
            loaded.readers -= 1

    async def load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Writes files that the servers read, one while the next is written. Raises EngineError
        for weights that are unknown or missing; a server that fails is taken out."""
        from trainer.ops.weight_files import remove, write_buckets

        folder = self._folder / f"{next(self._number)}-version-{version}"
        files = write_buckets(weights, folder, dtype=self.precision, limit=self._bucket)
        async with self.fleet.alone() as members:
            old, self._paths, self.proof, self.version = self._paths, [], None, version
            self._current, self._bare = None, False
            members = await self.fleet.each(members, self._begin)
            path = await asyncio.to_thread(next, files, None)
            while path is not None:
                self._paths.append(path)
                after = asyncio.create_task(asyncio.to_thread(next, files, None))
                members = await self.fleet.each(members, lambda m, p=path: self._send(m, p))
                path = await after
            await self.fleet.each(members, self._finish)
            if old:
                await asyncio.to_thread(remove, old[0].parent)

    async def load_adapter(
        self, base: Callable[[], Iterable[tuple[str, Tensor]]], adapter: Adapter, version: int
    ) -> None:
        """As `load`; `base` is sent before the first adapter only."""
        from trainer.ops.adapters import write_adapter

        if not self._bare:
            await self.load(base(), version)
            self._bare = True
        name = f"version-{version}-{next(self._number)}"
        loaded = _Loaded(name, self._folder / name)
        await asyncio.to_thread(write_adapter, adapter, loaded.folder, dtype=self.precision)
        async with self.fleet.alone() as members:
            await self.fleet.each(members, lambda member: self._add(member, loaded))
            self._adapters.append(loaded)
            self._current, self.version, self.proof = loaded, version, None
            await self._drop_old(members)

    async def load_through(
        self, native: str, send: Callable[[TransferClient], None], version: int
    ) -> None:
        """A server that fails meanwhile ends the run: the others wait for it inside the send."""
        async with self.fleet.alone() as members:
            self._paths, self.proof, self.version = [], None, version
            self._current, self._bare = None, False
            peers = [(member.name, member.starts) for member in members]

            async def post(index: int, path: str, body: Any) -> Any:
                return await self._control(members[index], path, body)

            try:
                for member in members:
                    if member.calls:
                        await self._control(member, "/pause?mode=keep")
                worlds = [await self._world(member) for member in members]
                client = TransferClient(native, worlds, version, post, peers)
                await asyncio.to_thread(send, client)
            except MemberFault as fault:
                raise EngineError(f"a vLLM server failed during a sync: {fault}") from fault
            await self.fleet.each(members, self._renew)

    async def prepare(
        self, member: Member, score: Callable[[Member, Rows], Awaitable[Scores]]
    ) -> bool:
        """A server that just started: what may not be sampled, the weights, and the proof. False
        if the current weights were not kept: they come with the next sync."""
        await self.rpc(member, "cohort_ban", [self._banned])
        await self._control(member, "/init_weight_transfer_engine", {"init_info": {}})
        if not self._paths:
            return self.version is None
        await self._control(member, "/start_weight_update")
        for path in self._paths:
            await self._send(member, path)
        await self._finish(member)
        for loaded in self._adapters:
            await self._add(member, loaded)
        if self.proof is not None:
            rows, agreed = self.proof
            gap = largest_gap(agreed, await score(member, rows))
            if not gap <= AGREE[self.precision]:
                raise MemberFault(
                    f"it differs by {gap:.3g} nats from the other servers after the sync of "
                    f"version {self.version}"
                )
        return True

    async def rpc(self, member: Member, method: str, args: list[Any] | None = None) -> Any:
        """What one of our methods in vLLM's worker returns."""
        body = {"method": method, "args": args or []}
        return (await self._control(member, "/collective_rpc", body))["results"][0]

    async def _add(self, member: Member, loaded: _Loaded) -> None:
        body = {"lora_name": loaded.name, "lora_path": str(loaded.folder)}
        try:
            await self._control(member, "/v1/load_lora_adapter", body)
        except MemberFault as fault:
            if _REFUSED in str(fault):
                raise EngineError(f"{member.name} does not take the adapter: {fault}") from fault
            raise

    async def _drop_old(self, members: Sequence[Member]) -> None:
        from trainer.ops.weight_files import remove

        for loaded in list(self._adapters):
            if loaded is not self._current and not loaded.readers:
                body = {"lora_name": loaded.name}
                await self.fleet.each(
                    [member for member in members if not member.lost.is_set()],
                    lambda m, b=body: self._control(m, "/v1/unload_lora_adapter", b),
                )
                self._adapters.remove(loaded)
                await asyncio.to_thread(remove, loaded.folder)

    async def _world(self, member: Member) -> int:
        return (await self._control(member, "/get_world_size", method="GET"))["world_size"]

    async def _begin(self, member: Member) -> None:
        if member.calls:
            await self._control(member, "/pause?mode=keep")
        await self._control(member, "/start_weight_update")

    async def _send(self, member: Member, path: Path) -> None:
        await self._control(member, "/update_weights", {"update_info": {"path": str(path)}})

    async def _finish(self, member: Member) -> None:
        await self._control(member, "/finish_weight_update", {"weight_version": str(self.version)})
        await self._renew(member)

    async def _renew(self, member: Member) -> None:
        """After an update: nothing may be missing, and nothing that was computed before is kept."""
        missing = await self.rpc(member, "cohort_missing")
        if missing:
            raise EngineError(f"weights were not sent, or only in part: {', '.join(missing)}")
        done = await self._control(member, "/reset_prefix_cache?reset_running_requests=true")
        if not done["success"]:
            raise MemberFault("the prefix cache of the old weights could not be dropped")
        if self._images:
            await self._control(member, "/reset_encoder_cache")
        await self._control(member, "/resume")

    async def _control(
        self, member: Member, path: str, body: Any = None, *, method: str = "POST"
    ) -> Any:
        limits = self.fleet.deadlines
        return await member.control(
            path, body, deadline=limits.control, stall=limits.stall, method=method
        )
