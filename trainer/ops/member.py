"""One server of a fleet: asked over HTTP, with a deadline for everything, and told to be stuck when
it shows no sign of life."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from trainer.errors import EngineError
from trainer.ops.server_process import ServerProcess

_REFUSED = range(400, 500)
_IDLE = 0.005
"""Share of a CPU under which a server does nothing: its idle engine polls with 0.01, its front end
alone, while the engine is frozen, takes 0.001."""


class Refused(EngineError):
    """A server says that a request is wrong."""


class MemberFault(Exception):
    """A server failed a request; another one may not."""


class Broken(MemberFault):
    """A server says that it failed."""


class Stuck(MemberFault):
    """A server shows no sign of life."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds; every wait has one."""

    start: float
    """From the start of a server, or the loss of one that is not ours, to its first answer."""
    request: float
    """For one reply."""
    control: float
    """For one step of a sync, a pause, a cache reset."""
    stall: float
    """Of such a step without a sign of life."""
    health: float
    """For one token of a server that finished nothing meanwhile."""


@dataclass(eq=False, slots=True)
class Member:
    """One server."""

    name: str
    url: str
    process: ServerProcess | None
    """None for a server that somebody else started."""
    client: httpx.AsyncClient
    ready: bool = False
    standby: bool = False
    """It runs, and waits for the weights of the next sync."""
    gone: str = ""
    """Why it will not come back; "" while it may."""
    calls: set[asyncio.Task[httpx.Response]] = field(default_factory=set)
    starts: int = 0
    served: int = 0
    heard: float = 0.0
    """When it last finished a request."""
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""

    async def control(
        self,
        path: str,
        body: Any = None,
        *,
        deadline: float,
        stall: float | None = None,
        method: str = "POST",
    ) -> Any:
        """A request that is not retried. Raises MemberFault, with `stall` also (Stuck) when the
        server shows no sign of life for so many seconds."""
        response = await self.ask(path, body, deadline=deadline, stall=stall, method=method)
        return read_json(response) if _speaks_json(response) else response.text

    async def ask(
        self,
        path: str,
        body: Any,
        *,
        deadline: float,
        stall: float | None = None,
        method: str = "POST",
    ) -> httpx.Response:
        task = asyncio.create_task(self.client.request(method, path, json=body))
        both: set[asyncio.Task[Any]] = {task}
        if stall is not None:
            both.add(asyncio.create_task(self._stuck(stall)))
        self.calls.add(task)
        try:
            done, _ = await asyncio.wait(
                both, timeout=deadline, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                raise MemberFault(f"{path}: no answer within {deadline:g} s")
            if task not in done:
                raise Stuck(f"{path}: {done.pop().result()}")
            if task.cancelled():  # by `Fleet.lose`
                raise MemberFault(self.reason)
            response = task.result()
        except httpx.HTTPError as error:
            raise MemberFault(f"{path}: {type(error).__name__} {error}") from error
        finally:
            self.calls.discard(task)
            for one in both:
                one.cancel()
        if response.status_code in _REFUSED:
            raise Refused(f"{self.name} refuses {path}: {excerpt(response)}")
        if response.is_error:
            raise Broken(f"{path}: {response.status_code} {excerpt(response)}")
        return response

    async def _stuck(self, seconds: float) -> str:
        """Returns, with what was seen, once there is no sign of life for `seconds`: its front end
        does not answer, or, of a server of ours, no process computes or reads a disk. A server
        that takes weights answers nothing else, so a token is no question for it."""
        while True:
            began = time.monotonic()
            used = self.process.used_seconds() if self.process else 0.0
            try:
                answer = await self.client.get("/health", timeout=seconds)
            except httpx.HTTPError as error:
                return f"/health gives {type(error).__name__} within {seconds:g} s"
            if answer.is_error:
                return f"/health gives {answer.status_code}"
            await asyncio.sleep(seconds - (time.monotonic() - began))
            took = time.monotonic() - began
            if self.process and self.process.used_seconds() - used < _IDLE * took:
                return f"no answer, and it computed nothing for {took:.0f} s"


def read_json(response: httpx.Response) -> Any:
    """Raises MemberFault."""
    try:
        return response.json()
    except ValueError:
        raise MemberFault(f"an answer that is not JSON: {excerpt(response)}") from None


def excerpt(response: httpx.Response) -> str:
    return response.text[:500]


def _speaks_json(response: httpx.Response) -> bool:
    """Some answers of vLLM to a command are a sentence, or nothing."""
    return "json" in response.headers.get("content-type", "")
