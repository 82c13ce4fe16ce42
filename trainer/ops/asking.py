"""Requests to servers that judge: bounded in number and in time, and insistent."""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import json
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field, field_validator

from trainer.errors import MissingService
from trainer.ops.verdict import shorten
from trainer.plugin import Frozen
from trainer.types import ScoreStatus

if TYPE_CHECKING:
    import httpx

    from trainer.context import Context
    from trainer.ops.chat_start import StartedChat

T = TypeVar("T")
_LONGEST_PAUSE = 30.0
_WORTH_ANOTHER_TRY = (408, 409, 425, 429)
"""Of the 4xx: time-outs, conflicts, rate limits."""


class ServerFault(Exception):
    """A question without an answer; the message says what each try met."""

    def __init__(self, status: ScoreStatus, reason: str):
        super().__init__(reason)
        self.status = status


class Again(Exception):
    """A try that failed in a way that may pass. `pause`: seconds the server asks us to wait."""

    def __init__(self, reason: str, pause: float | None = None):
        super().__init__(reason)
        self.pause = pause


class Service(Frozen):
    """Where questions go, and how long we insist. Subclasses may start a server of our own:
    a field `start`."""

    urls: tuple[str, ...] = ()
    """Servers that run already; several are asked in turn."""
    model: str = ""
    """Name of the model on the server; not needed with `start`."""
    key_env: str | None = None
    """Environment variable that holds the key; keys never stand in recipes."""
    trust_env: bool = False
    """Whether HTTP(S)_PROXY of the environment apply."""
    concurrency: int = Field(32, gt=0)
    """Questions under way at once, of this process."""
    deadline: float = Field(180.0, gt=0)
    """Seconds for one question, all tries and pauses; waiting for its turn does not count."""
    try_deadline: float = Field(60.0, gt=0)
    """Seconds for one try."""
    retries: int = Field(4, ge=0)
    """Tries after the first: for lost connections, time-outs, 5xx, rate limits, answers that are
    not of the form asked for. Other 4xx are not tried again."""
    backoff: float = Field(1.0, gt=0)
    """Seconds before the second try, give or take half; doubled each time, at most 30. A server's
    Retry-After goes first."""

    @field_validator("urls")
    @classmethod
    def _are_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"{url!r} is no URL; write it as http://host:port/v1")
        return tuple(url.rstrip("/") for url in urls)

    def check_source(self, start: StartedChat | None) -> None:
        """ValueError unless there is one source of answers, and a name for the model."""
        if bool(self.urls) == (start is not None):
            hint = "; start: null takes out the one of a recipe" if self.urls else ""
            raise ValueError(
                f"give one of: urls (servers that run), start (a vLLM of our own){hint}"
            )
        if self.urls and not self.model:
            raise ValueError("model: missing; it is the model's name on the server of `urls`")

    def check_ready(self, start: StartedChat | None) -> None:
        """Raises MissingService for a key that is not set, and what `start.ready` raises."""
        if self.key_env is not None and not os.environ.get(self.key_env):
            raise MissingService(
                f"server.key_env: the environment has no {self.key_env}; export it before the run "
                "starts"
            )
        if start is not None:
            start.ready()

    @asynccontextmanager
    async def connected(
        self, start: StartedChat | None, context: Context | None
    ) -> AsyncIterator[Asker]:
        """`context`: of the run, for `start`. Raises what `check_ready` does, MissingService for
        `start` without a run, EngineError if our server does not come up."""
        import httpx

        headers = {"Content-Type": "application/json"}
        self.check_ready(start if context is not None else None)
        if self.key_env is not None:
            headers["Authorization"] = f"Bearer {os.environ[self.key_env]}"
        async with AsyncExitStack() as stack:
            urls: Sequence[str] = self.urls
            if start is not None:
                if context is None:
                    raise MissingService(
                        "server.start needs a run, which starts the server; for recorded answers "
                        "give server.urls of one that runs"
                    )
                urls = [await stack.enter_async_context(start.open(context))]
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=self.concurrency)
            clients = [
                await stack.enter_async_context(
                    httpx.AsyncClient(
                        base_url=f"{url}/",
                        headers=headers,
                        timeout=None,
                        limits=limits,
                        trust_env=self.trust_env,
                    )
                )
                for url in urls
            ]
            yield Asker(self, clients)


class Asker:
    """What `Service.connected` gives."""

    def __init__(self, service: Service, clients: Sequence[httpx.AsyncClient]):
        self._service = service
        self._clients: Iterator[httpx.AsyncClient] = itertools.cycle(clients)
        self._slots = asyncio.Semaphore(service.concurrency)

    async def ask(self, path: str, body: dict[str, Any], read: Callable[[Any], T]) -> T:
        """What `read` makes of the JSON that the server answers; it raises `Again` for one of
        another form. Raises ServerFault if there is no answer in time."""
        async with self._slots:
            return await self._insist(path, body, read)

    async def _insist(self, path: str, body: dict[str, Any], read: Callable[[Any], T]) -> T:
        service, faults, late = self._service, [], False
        end = time.monotonic() + service.deadline
        for attempt in itertools.count():
            limit = min(service.try_deadline, end - time.monotonic())
            pause = None
            late = False
            try:
                async with asyncio.timeout(limit):
                    return read(await _answer(next(self._clients), path, body))
            except TimeoutError:
                late = True
                faults.append(f"no answer within {limit:.3g} s")
            except Again as again:
                pause = again.pause
                faults.append(str(again))
            if pause is None:
                pause = min(_LONGEST_PAUSE, service.backoff * 2**attempt)
                pause *= random.uniform(0.5, 1.5)
            if attempt >= service.retries:
                break
            if time.monotonic() + pause >= end:
                late = True
                faults.append(f"no time left of {service.deadline:g} s")
                break
            await asyncio.sleep(pause)
        told = "; then ".join(text for text, _ in itertools.groupby(faults))
        status = ScoreStatus.TIMEOUT if late else ScoreStatus.RAISED
        raise ServerFault(status, f"the server did not answer: {told}")


async def _answer(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> Any:
    import httpx

    try:
        # as ASCII: a reply may hold half a surrogate pair, which UTF-8 cannot write
        response = await client.post(path, content=json.dumps(body).encode("ascii"))
    except httpx.HTTPError as error:
        raise Again(shorten(f"{type(error).__name__} {error}", 120)) from error
    code = response.status_code
    if code >= 500 or code in _WORTH_ANOTHER_TRY:
        raise Again(f"status {code}", _retry_after(response.headers.get("retry-after")))
    if not response.is_success:
        said = shorten(response.text, 200)
        raise ServerFault(ScoreStatus.RAISED, f"the server refuses: status {code} {said}")
    try:
        return response.json()
    except (ValueError, RecursionError):
        raise Again(f"no JSON: {shorten(response.text, 80)!r}") from None


def _retry_after(value: str | None) -> float | None:
    """Seconds, from a number of them or an HTTP date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None
