"""A server that runs elsewhere follows one trainer: of two that send weights to it each would get
replies of the other's. A trainer claims its servers and keeps saying so; what a dead one claimed is
free again after a while. The server's side is `vllm_adapter.worker.Worker.cohort_claim`."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

from trainer.errors import EngineError
from trainer.ops.member import Member, MemberFault

LEASE_SECONDS = 30.0
"""How long a claim lasts without a word from its owner."""
EVERY_SECONDS = 5.0

Rpc = Callable[[Member, str, list[object]], Awaitable[str]]


class Claim:
    """Of one trainer process, on all servers that it was given."""

    def __init__(self, rpc: Rpc):
        """`rpc` calls one of our methods in a server's worker."""
        self._rpc, self._lease = rpc, LEASE_SECONDS
        self._owner = f"process {os.getpid()} on {socket.gethostname()} ({uuid4().hex[:8]})"

    async def take(self, member: Member) -> None:
        """Waits until another trainer's claim has run out, if that trainer is gone. Raises
        EngineError if it is not."""
        until = time.monotonic() + 1.5 * self._lease
        while other := await self._say(member):
            if time.monotonic() > until:
                raise EngineError(
                    f"{member.name} follows another trainer: {other}. A server serves one run at a "
                    "time: end that run, or start more servers (cohort serve)"
                )
            await asyncio.sleep(self._lease / 10)

    @asynccontextmanager
    async def kept(self, members: Sequence[Member]) -> AsyncIterator[None]:
        """While it is entered the servers in use hear of us; when it is left they are free."""
        task = asyncio.create_task(self._keep(members))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self._all(members, lambda m: self._rpc(m, "cohort_release", [self._owner]))

    async def _keep(self, members: Sequence[Member]) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            await self._all(members, self._say)

    async def _all(
        self, members: Sequence[Member], say: Callable[[Member], Awaitable[str]]
    ) -> None:
        """A server that does not answer is found out by those who ask it for replies."""

        async def one(member: Member) -> None:
            with suppress(MemberFault, EngineError, TimeoutError):
                async with asyncio.timeout(self._lease):
                    await say(member)

        await asyncio.gather(*(one(m) for m in members if m.ready or m.standby))

    async def _say(self, member: Member) -> str:
        return await self._rpc(member, "cohort_claim", [self._owner, self._lease])
