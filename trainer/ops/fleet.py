"""Servers that do the same work: requests go to the least busy one, a server that dies, hangs or
answers nonsense is taken out, brought back, prepared and used again. No request is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx

from trainer.errors import EngineError
from trainer.ops.member import Deadlines, Member, MemberFault, Refused, read_json

T = TypeVar("T")
Send = Callable[[Member, str, Any], Awaitable[httpx.Response]]
_POLL_SECONDS = 0.2
_DYING_SECONDS = 1.0
"""A broken connection is often seen before the end of the process behind it."""


class Fleet:
    """`prepare` makes a server that just started equal to the others; it may raise MemberFault.
    It returns False if only the next sync can: the server stands by until then."""

    def __init__(
        self,
        members: Sequence[Member],
        deadlines: Deadlines,
        *,
        retries: int,
        restarts: int,
        health_every: float,
        prepare: Callable[[Member], Awaitable[bool]],
        alive: Callable[[Member], Awaitable[None]],
        log: Path,
    ):
        """`alive` generates a token, or raises MemberFault."""
        self.members, self.deadlines = list(members), deadlines
        self._retries, self._restarts, self._health_every = retries, restarts, health_every
        self._prepare, self._alive, self._log = prepare, alive, log
        self._changed = asyncio.Condition()
        self._alone = asyncio.Lock()
        """Held while weights change: no server joins, no request starts."""
        self._holding = False
        self.faults: list[str] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Starts all servers; leaving ends those that are ours. Raises EngineError with a server's
        own traceback if it does not come up."""
        async with AsyncExitStack() as stack:
            for member in self.members:
                stack.push_async_callback(member.client.aclose)
                if member.process is not None:
                    stack.push_async_callback(member.process.stop)
            await asyncio.gather(*map(self._first_start, self.members))
            watchers = [asyncio.create_task(self._look_after(member)) for member in self.members]
            try:
                yield
            finally:
                for watcher in watchers:
                    watcher.cancel()
                await asyncio.gather(*watchers, return_exceptions=True)

    @property
    def ready(self) -> list[Member]:
        return [member for member in self.members if member.ready]

    async def call(
        self, path: str, body: Any, read: Callable[[Any], T], *, send: Send | None = None
    ) -> T:
        """`read` of one server's answer, to what `send` asks if that takes more than asking.

        A fault (network, deadline, an answer that `read` refuses with MemberFault, a refusal by a
        server that is not well) takes the server out, and the same body goes to another one.
        Raises EngineError for a request that a server which is well refuses, or that failed more
        than `retries` times."""
        faults: list[str] = []
        while True:
            member = await self._choose()
            life = member.starts
            try:
                answer = read(read_json(await (send or self.ask)(member, path, body)))
            except MemberFault as fault:
                faults.append(f"{member.name}: {fault}")
                self.lose(member, str(fault), life)
                if len(faults) > self._retries:
                    raise EngineError(
                        f"a request failed {len(faults)} times: {'; '.join(faults)}. Servers: "
                        f"{self._told()}"
                    ) from fault
            else:
                member.served += 1
                member.heard = time.monotonic()
                return answer

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[list[Member]]:
        """The servers to sync, while no new request starts and no server joins. What they are
        writing goes on unless it is paused. Those that stood by are ready afterwards."""
        async with self._alone:
            self._holding = True
            members = [member for member in self.members if member.ready or member.standby]
            try:
                yield members
                for member in members:
                    member.ready, member.standby = not member.lost.is_set(), False
            finally:
                async with self._changed:
                    self._holding = False
                    self._changed.notify_all()

    async def each(
        self, members: Sequence[Member], action: Callable[[Member], Awaitable[Any]]
    ) -> list[Member]:
        """Does `action` on all at once; those that fail are taken out, the others returned."""

        async def attempt(member: Member) -> bool:
            life = member.starts
            try:
                await self._judged(member, action(member))
            except MemberFault as fault:
                self.lose(member, str(fault), life)
                return False
            return True

        done = await asyncio.gather(*map(attempt, members))
        return [member for member, fine in zip(members, done, strict=True) if fine]

    async def wait_ready(self) -> list[Member]:
        """Waits until at least one server can be used. Raises EngineError if none will, or none
        within the deadline."""
        deadline = self.deadlines.start
        try:
            async with asyncio.timeout(deadline), self._changed:
                await self._changed.wait_for(
                    lambda: (self.ready and not self._holding) or self._hopeless
                )
        except TimeoutError:
            raise EngineError(
                f"no vLLM server became ready within {deadline:g} s: {self._told()}"
            ) from None
        if not self.ready:
            raise EngineError(f"no vLLM server is left: {self._told()}")
        return self.ready

    def lose(self, member: Member, reason: str, life: int | None = None) -> None:
        """Takes a server out; what it was asked goes to others. `life`: its `starts` when it was
        asked; what an earlier life left unanswered says nothing about this one."""
        if member.lost.is_set() or (life is not None and life != member.starts):
            return
        member.ready, member.standby, member.reason = False, False, reason
        member.lost.set()
        for call in list(member.calls):
            call.cancel()
        self._note(f"{member.name} is out: {reason}")
        self.faults.append(f"{member.name}: {reason}")

    async def ask(self, member: Member, path: str, body: Any) -> httpx.Response:
        """This server. A kept connection may be closed by it just as it is used again: a request
        that breaks off is tried once more before the server is taken for dead."""
        limit = self.deadlines.request
        try:
            return await self._judged(member, member.ask(path, body, deadline=limit))
        except MemberFault as fault:
            if not isinstance(fault.__cause__, httpx.NetworkError | httpx.RemoteProtocolError):
                raise
        return await self._judged(member, member.ask(path, body, deadline=limit))

    async def _judged(self, member: Member, work: Awaitable[T]) -> T:
        """A server that computes nonsense may fail to write it down and call that a bad request:
        only one that is well can refuse."""
        try:
            return await work
        except Refused as refusal:
            try:
                await self._alive(member)
            except (MemberFault, EngineError) as fault:
                raise MemberFault(str(refusal)) from fault
            raise

    async def _choose(self) -> Member:
        ready = await self.wait_ready()
        return min(ready, key=lambda member: (len(member.calls), member.served))

    @property
    def _hopeless(self) -> bool:
        return all(member.gone for member in self.members)

    def _told(self) -> str:
        said = (f"{m.name}: {m.gone or m.reason or 'no fault'}" for m in self.members)
        return "\n".join(said)

    async def _first_start(self, member: Member) -> None:
        try:
            await self._bring_up(member)
            await self._join(member, ready=await self._prepare(member))
        except MemberFault as fault:
            raise EngineError(f"{member.name} did not start: {fault}") from fault

    async def _bring_up(self, member: Member) -> None:
        """Starts it, and waits for its first token."""
        member.lost.clear()
        member.starts += 1
        if member.process is not None:
            await member.process.start()
        try:
            async with asyncio.timeout(self.deadlines.start):
                while not await self._answers(member):
                    if member.process is not None and not member.process.running:
                        raise MemberFault(f"it ended.\n{member.process.last_words()}")
                    await asyncio.sleep(_POLL_SECONDS)
                await self._alive(member)
        except TimeoutError:
            words = "" if member.process is None else f"\n{member.process.last_words()}"
            raise MemberFault(f"no answer within {self.deadlines.start:g} s{words}") from None

    async def _answers(self, member: Member) -> bool:
        try:
            return (await member.client.get("/health", timeout=5)).is_success
        except httpx.HTTPError:
            return False

    async def _join(self, member: Member, *, ready: bool) -> None:
        async with self._changed:
            member.heard = time.monotonic()
            member.ready, member.standby = ready, not ready
            self._changed.notify_all()

    async def _look_after(self, member: Member) -> None:
        """For as long as the fleet is open: notices a loss, and undoes it."""
        attempts = 0
        while True:
            if member.ready or member.standby:
                attempts = 0
                await self._notice_loss(member)
            await self._bury(member)
            attempts += 1
            if attempts > self._restarts:
                member.gone = f"lost {attempts} times in a row; the last time: {member.reason}"
                async with self._changed:
                    self._changed.notify_all()
                return
            try:
                await self._bring_up(member)
                async with self._alone:
                    await self._join(member, ready=await self._prepare(member))
            except (MemberFault, EngineError) as fault:
                self.lose(member, str(fault))
            else:
                self._note(f"{member.name} is back")

    async def _bury(self, member: Member) -> None:
        """Ends what is left of a server of ours; keeps its last words if it had died."""
        if member.process is None:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(member.process.wait(), _DYING_SECONDS)
        died = not member.process.running
        await member.process.kill()
        words = member.process.last_words()
        if died and words not in member.reason:
            member.reason += f"; its process ended.\n{words}"
            self._note(f"{member.name}: {member.reason}")

    async def _notice_loss(self, member: Member) -> None:
        """Returns once the server is lost: a request failed, its process ended, or it has finished
        nothing for a while and does not generate one token either."""
        ended = asyncio.create_task(member.process.wait() if member.process else _never())
        failed = asyncio.create_task(member.lost.wait())
        try:
            while True:
                done, _ = await asyncio.wait(
                    {ended, failed},
                    timeout=self._health_every,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if failed in done:
                    return
                if ended in done:
                    self.lose(member, "it is gone")
                    return
                quiet = time.monotonic() - member.heard
                if quiet > self._health_every and not self._alone.locked():
                    try:
                        await self._alive(member)
                        member.heard = time.monotonic()
                    except (MemberFault, EngineError) as fault:
                        self.lose(member, f"health: {fault}")
                        return
        finally:
            ended.cancel()
            failed.cancel()

    def _note(self, line: str) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")


async def _never() -> None:
    await asyncio.Event().wait()
