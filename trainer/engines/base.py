"""Contract of `engine:`: samples tokens, scores tokens, takes new weights."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from trainer.errors import EngineError
from trainer.plugin import Frozen, Plugin

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.context import Context
    from trainer.ops.adapters import Adapter
    from trainer.ops.transfer_client import TransferClient


class Sampling(Frozen):
    """How tokens are drawn."""

    temperature: float = Field(1.0, ge=0)
    """0 is greedy decoding."""
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    """0 keeps all."""
    min_p: float = Field(0.0, ge=0, lt=1)
    """Drop tokens under `min_p` times the most likely one."""
    max_tokens: int = Field(256, gt=0)
    """Longest reply, in tokens, end-of-turn included."""
    stop: tuple[str, ...] = ()
    """Strings that end a reply; the reply keeps them."""

    @property
    def truncates_support(self) -> bool:
        """True if some tokens cannot be drawn, so ratios against the full softmax are biased."""
        return self.temperature > 0 and (self.top_p < 1 or self.top_k > 0 or self.min_p > 0)


@dataclass(frozen=True, slots=True)
class Request:
    """One continuation to sample. Requests with equal `tokens` share one prefill."""

    tokens: list[int]
    sampling: Sampling
    seed: int
    """Fixes the sample whatever else is in the batch."""
    inputs: dict[str, Any] = field(default_factory=dict)
    order: tuple[int, ...] = ()
    """Sort key inside a batch, e.g. (serial, member): makes batches reproducible."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine returns for a request. A stop token is part of `tokens`."""

    tokens: list[int]  # [n]
    logprobs: list[float]  # [n] of the distribution the token was drawn from; greedy: temperature 1
    version: list[int]  # [n]
    finish: str
    """stop | length | abort; what an engine aborted counts as truncated, its tokens are real."""


class Engine(Plugin):
    """`sample` may be called many times at once; an engine batches what is pending."""

    family: ClassVar[str] = "trainer.engines"

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        """Brings the engine to life; entered and left once by `Run`."""
        yield

    @property
    def precision(self) -> str:
        """`float32`, `bfloat16` or `float16`: what the engine computes in."""
        return "float32"

    async def sample(self, request: Request) -> Completion:
        """Raises `EngineError` if the request cannot be served."""
        raise NotImplementedError

    async def logprobs(self, rows: list[tuple[list[int], dict[str, Any]]]) -> list[list[float]]:
        """Teacher-forced log-probs at temperature 1 of each (tokens, inputs) row:
        [n - 1] numbers, of tokens 1..n-1. Banned ids are outside of the softmax; a banned token
        (an image placeholder of the prompt) has -inf."""
        raise NotImplementedError

    async def load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Takes a full set of named weights (transformers' names); later tokens carry `version`."""
        raise NotImplementedError

    async def load_through(
        self, native: str, send: Callable[[TransferClient], None], version: int
    ) -> None:
        """As `load`, by a sender that moves the bytes itself (`native`: nccl, ipc); `send` is
        called in a thread. Raises EngineError where there are no servers to send to."""
        raise EngineError(
            f"engine {self.name()} takes weights from its own process: set weights: in_process"
        )

    @property
    def adapter_rank(self) -> int:
        """Largest rank of an adapter that `load_adapter` takes; 0: none."""
        return 0

    async def load_adapter(
        self, base: Callable[[], Iterable[tuple[str, Tensor]]], adapter: Adapter, version: int
    ) -> None:
        """As `load`, where only an adapter changes from version to version: `base`, the weights
        below it, is taken once."""
        raise EngineError(f"engine {self.name()} takes no adapters, only whole weights")

    async def sketches(self, names: list[str]) -> dict[str, list[float]]:
        """`ops.sketches.sketch` of the named weights as the engine computes with them, to find the
        one that is wrong; {} where an engine cannot tell."""
        return {}

    async def sleep(self) -> None:
        """Gives accelerator memory back until `wake`; engines without this do nothing."""

    async def wake(self) -> None:
        """Undoes `sleep`."""

    async def health(self) -> bool:
        """True only if one token could really be generated."""
        request = Request([self.any_token()], Sampling(temperature=0, max_tokens=1), seed=0)
        try:
            return len((await self.sample(request)).tokens) == 1
        except EngineError:
            return False

    def any_token(self) -> int:
        """An id that may stand in a prompt: what `health` asks with."""
        raise NotImplementedError
