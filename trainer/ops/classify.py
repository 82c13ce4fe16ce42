"""Values of a reward model that a vLLM serves: its `/classify`, raw, without a sigmoid."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from pydantic import field_validator, model_validator

from trainer.errors import ConfigError
from trainer.ops.asking import Again, Asker, ServerFault, Service
from trainer.ops.chat_start import StartedChat
from trainer.ops.verdict import shorten
from trainer.types import ScoreStatus

if TYPE_CHECKING:
    from trainer.context import Context
    from trainer.renderer import Renderer

_PROBE = "Is 12+34=46? Yes.\n<think>naïve café</think> 日本語 \U0001f642"
"""Text that different tokenizers cut differently."""


class StartedClassifier(StartedChat):
    """A vLLM that serves `model`: a transformers checkpoint for sequence classification, or the
    folder that a stage with `policy: {head: value}` exported."""

    def arguments(self, device: str) -> dict[str, Any]:
        return super().arguments(device) | {"runner": "pooling"}

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[str]:
        from trainer.ops.value_heads import as_classifier

        with as_classifier(self.model) as folder:
            served = self.model_copy(update={"model": folder})
            async with StartedChat.open(served, context) as url:
                yield url.removesuffix("/v1")


class ClassifyServer(Service):
    """A vLLM that serves the model with `--runner pooling`. `urls` have the path before
    `/classify`: `http://host:8000`."""

    start: StartedClassifier | None = None
    """A vLLM of our own instead."""

    @field_validator("urls")
    @classmethod
    def _without_path(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(url.removesuffix("/classify").removesuffix("/v1") for url in urls)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        self.check_source(self.start)
        return self

    def ready(self) -> None:
        """As `Service.check_ready`."""
        self.check_ready(self.start)

    @asynccontextmanager
    async def open(self, context: Context | None) -> AsyncIterator[Classifier]:
        """As `Service.connected`."""
        async with self.connected(self.start, context) as asker:
            yield Classifier(self.model if self.start is None else self.start.served, asker)


class Classifier:
    """What `ClassifyServer.open` gives."""

    def __init__(self, model: str, asker: Asker):
        self._model, self._asker = model, asker

    async def of_tokens(self, tokens: Sequence[int]) -> float:
        """The value after the last token. Raises ServerFault."""
        # no special tokens: they are there already
        return await self._value({"input": [list(tokens)], "add_special_tokens": False})

    async def of_messages(self, messages: Sequence[dict[str, Any]]) -> float:
        """The value after a conversation, in the template that the server has. Raises
        ServerFault."""
        return await self._value({"messages": list(messages), "add_generation_prompt": False})

    async def refuse_other_tokens(self, renderer: Renderer) -> None:
        """Raises ConfigError unless the server cuts text into the tokens of `renderer`."""
        body = {"model": self._model, "prompt": _PROBE, "add_special_tokens": False}
        try:
            theirs = await self._asker.ask("tokenize", body, _tokens)
        except ServerFault as fault:
            raise ConfigError(f"reward.server: cannot compare tokenizers: {fault}") from fault
        # not `renderer.encode`, which refuses what a small vocabulary cannot write
        if theirs != renderer.tokenizer(_PROBE, add_special_tokens=False)["input_ids"]:
            raise ConfigError(
                "reward.reads: rollout hands the policy's tokens to a served model with another "
                "tokenizer; set reads: text"
            )

    async def _value(self, asked: dict[str, Any]) -> float:
        body = {"model": self._model, "use_activation": False} | asked
        return await self._asker.ask("classify", body, _difference)


def _difference(answer: Any) -> float:
    """One label: its logit; two: the second's less the first's, as `ops.value_heads` has it."""
    try:
        (one,) = answer["data"]
        logits = [float(logit) for logit in one["probs"]]
    except (LookupError, TypeError, ValueError):
        raise Again(f"no classification: {shorten(json.dumps(answer), 80)!r}") from None
    if len(logits) > 2:
        reason = f"the model has {len(logits)} labels; a value is one number, or that of two labels"
        raise ServerFault(ScoreStatus.RAISED, reason)
    return logits[-1] - (logits[0] if len(logits) == 2 else 0.0)


def _tokens(answer: Any) -> list[int]:
    try:
        return [int(token) for token in answer["tokens"]]
    except (LookupError, TypeError, ValueError):
        raise Again(f"no tokens: {shorten(json.dumps(answer), 80)!r}") from None
