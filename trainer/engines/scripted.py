"""Answers from a script instead of a model: rollout code, rewards and faults are tested with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr, field_validator, model_validator

from trainer.engines.base import Completion, Engine, Request
from trainer.errors import EngineError
from trainer.plugin import load_object

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.context import Context
    from trainer.renderer import Renderer


@dataclass(slots=True)
class _Live:
    renderer: Renderer
    version: int = 0
    requests: int = 0
    loads: int = 0


class Scripted(Engine):
    """Exactly one of `answers`, `by_prompt` and `function` says what is answered."""

    answers: tuple[str, ...] = ()
    """Given one after the other, in the order of the requests, over and over."""
    by_prompt: dict[str, str] = {}
    """The answer of the first key that the text of the prompt contains; the key "" fits all."""
    function: str | None = None
    """`pkg.module:function`, called as `function(tokens, seed)`; returns the answer."""
    logprob: float = Field(-0.5, le=0)
    """Log-prob of every token."""
    delay: float = Field(0.0, ge=0)
    """Seconds before each answer."""
    fail_every: int = Field(0, ge=0)
    """Every n-th request raises EngineError; 0 never."""
    hang_every: int = Field(0, ge=0)
    """Every n-th request is never answered; 0 never."""

    _live: _Live | None = PrivateAttr(None)

    @field_validator("function")
    @classmethod
    def _exists(cls, name: str | None) -> str | None:
        if name is not None and not callable(load_object(name)):
            raise ValueError(f"{name!r} is not a function")
        return name

    @model_validator(mode="after")
    def _one_script(self) -> Scripted:
        if sum(map(bool, (self.answers, self.by_prompt, self.function))) != 1:
            raise ValueError("give one of: answers (a list), by_prompt (a mapping), function")
        return self

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        self._live = _Live(context.renderer)
        try:
            yield
        finally:
            self._live = None

    @property
    def _opened(self) -> _Live:
        if self._live is None:
            raise EngineError("the scripted engine is not open")
        return self._live

    @property
    def requests(self) -> int:
        """Requests so far, failed ones included."""
        return self._opened.requests

    @property
    def loads(self) -> int:
        """Sets of weights taken so far."""
        return self._opened.loads

    async def sample(self, request: Request) -> Completion:
        """The end-of-turn token is added unless a stop string ends the answer; `max_tokens` cuts
        it. Raises EngineError when `fail_every` says so, or if no key of `by_prompt` fits."""
        live = self._opened
        live.requests += 1
        number = live.requests
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.hang_every and number % self.hang_every == 0:
            await asyncio.Event().wait()
        if self.fail_every and number % self.fail_every == 0:
            raise EngineError(f"request {number} fails, as fail_every: {self.fail_every} says")
        text, stopped = _until_stop(self._answer(request, number), request.sampling.stop)
        tokens = live.renderer.encode(text)
        if not stopped:
            tokens = [*tokens, live.renderer.stop_ids[0]]
        limit = request.sampling.max_tokens
        finish = "stop" if len(tokens) <= limit else "length"
        tokens = tokens[:limit]
        n = len(tokens)
        return Completion(tokens, [self.logprob] * n, [live.version] * n, finish)

    def _answer(self, request: Request, number: int) -> str:
        if self.answers:
            return self.answers[(number - 1) % len(self.answers)]
        if self.function is not None:
            function: Callable[[list[int], int], str] = load_object(self.function)
            return function(request.tokens, request.seed)
        prompt = self._opened.renderer.decode(request.tokens)
        for key, answer in self.by_prompt.items():
            if key in prompt:
                return answer
        raise EngineError(f"engine.by_prompt: no key occurs in the prompt {prompt!r}")

    async def logprobs(self, rows: list[tuple[list[int], dict[str, Any]]]) -> list[list[float]]:
        return [[self.logprob] * (len(tokens) - 1) for tokens, _ in rows]

    async def load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Reads the weights to the end, as a real engine does, and keeps nothing."""
        for _ in weights:
            pass
        self._opened.loads += 1
        self._opened.version = version

    async def health(self) -> bool:
        return self._live is not None


def _until_stop(text: str, strings: Sequence[str]) -> tuple[str, bool]:
    """`text` up to the end of the first stop string in it, and whether there was one."""
    ends = [text.index(string) + len(string) for string in strings if string in text]
    return (text[: min(ends)], True) if ends else (text, False)
