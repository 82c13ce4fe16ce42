"""Questions to any OpenAI-compatible server: bounded in number and in time, retried, remembered."""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import json
import os
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakValueDictionary

from pydantic import Field, field_validator, model_validator

from trainer.errors import MissingService
from trainer.ops.chat_memory import Memory, content_key, open_memory
from trainer.ops.chat_start import StartedChat
from trainer.ops.verdict import shorten
from trainer.plugin import Frozen
from trainer.types import ScoreStatus

if TYPE_CHECKING:
    import httpx

    from trainer.context import Context

_LONGEST_PAUSE = 30.0
_WORTH_ANOTHER_TRY = (408, 409, 425, 429)
"""Of the 4xx: time-outs, conflicts, rate limits."""
_OWN_KEYS = ("model", "messages", "temperature", "max_tokens", "seed", "n", "stream")


class ChatFault(Exception):
    """A question without an answer; the message says what each try met."""

    def __init__(self, status: ScoreStatus, reason: str):
        super().__init__(reason)
        self.status = status


class _Again(Exception):
    """A try that failed in a way that may pass. `pause`: seconds the server asks us to wait."""

    def __init__(self, reason: str, pause: float | None = None):
        super().__init__(reason)
        self.pause = pause


class ChatServer(Frozen):
    """Where questions go, and how long we insist. A question is answered once: while it is under
    way, and as long as `cache` remembers it, asking the same again costs nothing."""

    urls: tuple[str, ...] = ()
    """Servers that run already, with the path before `/chat/completions`:
    `https://api.example.com/v1`. Several are asked in turn."""
    start: StartedChat | None = None
    """A vLLM of our own instead."""
    model: str = ""
    """Name of the model on the server; not needed with `start`."""
    key_env: str | None = None
    """Environment variable that holds the key; keys never stand in recipes."""
    trust_env: bool = False
    """Whether HTTP(S)_PROXY of the environment apply."""
    temperature: float = Field(0.0, ge=0)
    max_tokens: int = Field(1024, gt=0)
    """Of an answer, reasoning included."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """More keys of the request: `response_format`, `top_p`, `chat_template_kwargs`, ..."""
    concurrency: int = Field(32, gt=0)
    """Questions under way at once, of this process."""
    deadline: float = Field(180.0, gt=0)
    """Seconds for one question, all tries and pauses; waiting for its turn does not count."""
    try_deadline: float = Field(60.0, gt=0)
    """Seconds for one try."""
    retries: int = Field(4, ge=0)
    """Tries after the first: for lost connections, time-outs, 5xx, rate limits, answers that are
    no chat completion. Other 4xx are not tried again."""
    backoff: float = Field(1.0, gt=0)
    """Seconds before the second try, give or take half; doubled each time, at most 30. A server's
    Retry-After goes first."""
    cache: str = "memory"
    """`memory`, `none`, or a file that runs and processes share."""

    @field_validator("urls")
    @classmethod
    def _are_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"{url!r} is no URL; write it as http://host:port/v1")
        return tuple(url.rstrip("/").removesuffix("/chat/completions") for url in urls)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.urls) == (self.start is not None):
            raise ValueError("give one of: urls (servers that run), start (a vLLM of our own)")
        if self.urls and not self.model:
            raise ValueError("model: missing; it is the model's name on the server of `urls`")
        if taken := sorted(set(self.extra) & set(_OWN_KEYS)):
            raise ValueError(
                f"extra.{taken[0]}: this key is made by Cohort; use the field of that name, or "
                "leave it out"
            )
        return self

    @asynccontextmanager
    async def open(self, context: Context | None) -> AsyncIterator[Chat]:
        """`context`: of the run, for `start`. Raises MissingService for a key that is not set, or
        for `start` without a run; EngineError if our server does not come up."""
        import httpx

        headers = {"Content-Type": "application/json"}
        if self.key_env is not None:
            if not os.environ.get(self.key_env):
                raise MissingService(
                    f"server.key_env: the environment has no {self.key_env}; export it before the "
                    "run starts"
                )
            headers["Authorization"] = f"Bearer {os.environ[self.key_env]}"
        async with AsyncExitStack() as stack:
            urls: Sequence[str] = self.urls
            if self.start is not None:
                if context is None:
                    raise MissingService(
                        "server.start needs a run, which starts the server; for recorded answers "
                        "give server.urls of one that runs"
                    )
                urls = [await stack.enter_async_context(self.start.open(context))]
            memory = stack.enter_context(open_memory(self.cache))
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
            yield Chat(self, clients, memory)


class Chat:
    """What `ChatServer.open` gives."""

    def __init__(
        self, server: ChatServer, clients: Sequence[httpx.AsyncClient], memory: Memory | None
    ):
        self.server = server
        self._clients: Iterator[httpx.AsyncClient] = itertools.cycle(clients)
        self._memory = memory
        self._slots = asyncio.Semaphore(server.concurrency)
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def ask(self, messages: Sequence[dict[str, Any]], *, sample: int = 0) -> str:
        """The answer's text, "" for an answer without one. `sample` tells draws of the same
        question apart. Raises ChatFault if there is no answer in time."""
        server = self.server
        body: dict[str, Any] = server.extra | {
            "model": server.model if server.start is None else server.start.served,
            "messages": list(messages),
            "temperature": server.temperature,
            "max_tokens": server.max_tokens,
        }
        if sample:
            body["seed"] = sample
        if self._memory is None:
            return await self._in_turn(body)
        who = server.model if server.start is None else server.start.model
        key = content_key(body | {"model": who, "sample": sample})
        async with self._asking.setdefault(key, asyncio.Lock()):
            if (known := self._memory.get(key)) is not None:
                return known
            answer = await self._in_turn(body)
            self._memory.put(key, answer)
            return answer

    async def _in_turn(self, body: dict[str, Any]) -> str:
        async with self._slots:
            return await self._insist(body)

    async def _insist(self, body: dict[str, Any]) -> str:
        server, faults, late = self.server, [], False
        end = time.monotonic() + server.deadline
        for attempt in itertools.count():
            limit = min(server.try_deadline, end - time.monotonic())
            pause = None
            late = False
            try:
                async with asyncio.timeout(limit):
                    return await _answer(next(self._clients), body)
            except TimeoutError:
                late = True
                faults.append(f"no answer within {limit:.3g} s")
            except _Again as again:
                pause = again.pause
                faults.append(str(again))
            if pause is None:
                pause = min(_LONGEST_PAUSE, server.backoff * 2**attempt) * random.uniform(0.5, 1.5)
            if attempt >= server.retries:
                break
            if time.monotonic() + pause >= end:
                late = True
                faults.append(f"no time left of {server.deadline:g} s")
                break
            await asyncio.sleep(pause)
        told = "; then ".join(text for text, _ in itertools.groupby(faults))
        status = ScoreStatus.TIMEOUT if late else ScoreStatus.RAISED
        raise ChatFault(status, f"the judge did not answer: {told}")


async def _answer(client: httpx.AsyncClient, body: dict[str, Any]) -> str:
    import httpx

    try:
        # as ASCII: a reply may hold half a surrogate pair, which UTF-8 cannot write
        content = json.dumps(body).encode("ascii")
        response = await client.post("chat/completions", content=content)
    except httpx.HTTPError as error:
        raise _Again(shorten(f"{type(error).__name__} {error}", 120)) from error
    code = response.status_code
    if code >= 500 or code in _WORTH_ANOTHER_TRY:
        raise _Again(f"status {code}", _retry_after(response.headers.get("retry-after")))
    if not response.is_success:
        said = shorten(response.text, 200)
        raise ChatFault(ScoreStatus.RAISED, f"the judge refuses: status {code} {said}")
    try:
        message = response.json()["choices"][0]["message"]
        content = message["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise _Again(f"no chat completion: {shorten(response.text, 80)!r}") from None
    if content is None:  # refused, or all of it was reasoning
        return ""
    if not isinstance(content, str):
        raise _Again(f"content of type {type(content).__name__}, not text")
    return content


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
