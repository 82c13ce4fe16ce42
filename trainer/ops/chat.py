"""Questions to any OpenAI-compatible server, asked once and remembered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakValueDictionary

from pydantic import Field, field_validator, model_validator

from trainer.ops.asking import Again, Asker, Service
from trainer.ops.chat_memory import Memory, content_key, open_memory
from trainer.ops.chat_start import StartedChat
from trainer.ops.verdict import shorten

if TYPE_CHECKING:
    from trainer.context import Context

_PATH = "chat/completions"
_OWN_KEYS = ("model", "messages", "temperature", "max_tokens", "seed", "n", "stream")


class ChatServer(Service):
    """A question is answered once: while it is under way, and as long as `cache` remembers it,
    asking the same again costs nothing. `urls` have the path before `/chat/completions`:
    `https://api.example.com/v1`."""

    start: StartedChat | None = None
    """A vLLM of our own instead."""
    temperature: float = Field(0.0, ge=0)
    max_tokens: int = Field(1024, gt=0)
    """Of an answer, reasoning included."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """More keys of the request: `response_format`, `top_p`, `chat_template_kwargs`, ..."""
    cache: str = "memory"
    """`memory`, `none`, or a file that runs and processes share."""

    @field_validator("urls")
    @classmethod
    def _without_path(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(url.removesuffix(f"/{_PATH}") for url in urls)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        self.check_source(self.start)
        if taken := sorted(set(self.extra) & set(_OWN_KEYS)):
            raise ValueError(
                f"extra.{taken[0]}: this key is made by Cohort; use the field of that name, or "
                "leave it out"
            )
        return self

    def ready(self) -> None:
        """As `Service.check_ready`."""
        self.check_ready(self.start)

    @asynccontextmanager
    async def open(self, context: Context | None) -> AsyncIterator[Chat]:
        """As `Service.connected`."""
        async with self.connected(self.start, context) as asker:
            with open_memory(self.cache) as memory:
                yield Chat(self, asker, memory)


class Chat:
    """What `ChatServer.open` gives."""

    def __init__(self, server: ChatServer, asker: Asker, memory: Memory | None):
        self.server = server
        self._asker, self._memory = asker, memory
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def ask(self, messages: Sequence[dict[str, Any]], *, sample: int = 0) -> str:
        """The answer's text, "" for an answer without one. `sample` tells draws of the same
        question apart. Raises ServerFault if there is no answer in time."""
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
            return await self._asker.ask(_PATH, body, _text)
        who = server.model if server.start is None else server.start.model
        key = content_key(body | {"model": who, "sample": sample})
        async with self._asking.setdefault(key, asyncio.Lock()):
            if (known := self._memory.get(key)) is not None:
                return known
            answer = await self._asker.ask(_PATH, body, _text)
            self._memory.put(key, answer)
            return answer


def _text(completion: Any) -> str:
    try:
        content = completion["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        raise Again(f"no chat completion: {shorten(json.dumps(completion), 80)!r}") from None
    if content is None:  # refused, or all of it was reasoning
        return ""
    if not isinstance(content, str):
        raise Again(f"content of type {type(content).__name__}, not text")
    return content
