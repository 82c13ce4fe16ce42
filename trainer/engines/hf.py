"""Samples with a transformers model in this process: any text or Qwen-VL model, CPU or GPU.

Requests that are pending together form a batch, sorted by `Request.order`. Requests that arrive
while a batch is being decoded wait for the next one; a finished reply does not wait for the batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr

from trainer.engines.base import Completion, Engine, Request
from trainer.errors import EngineError
from trainer.ops.futures import quiet, settle

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.context import Context
    from trainer.ops.caches import PromptPath
    from trainer.ops.generation import Row
    from trainer.ops.served_model import ServedModel
    from trainer.renderer import Renderer


@dataclass(slots=True, eq=False)
class _Pending:
    request: Request
    future: asyncio.Future[Completion]
    row: Row | None = None


@dataclass(slots=True)
class _Live:
    """What exists while the engine is open."""

    model: ServedModel
    renderer: Renderer
    precision: str
    version: int = 0
    pending: list[_Pending] = field(default_factory=list)
    running: list[_Pending] = field(default_factory=list)
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held for the whole of a batch: weights never change in the middle of one."""
    runner: asyncio.Task[None] | None = None


class Hf(Engine):
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the device computes it fast, else float32."""
    cache: Literal["auto", "shared", "dynamic"] = "auto"
    """`shared`: a prompt is read and stored once for its whole group. `dynamic`: transformers'
    own cache, for architectures whose attention cannot be replaced. `auto`: shared if possible."""
    max_batch_rows: int = Field(256, gt=0)
    """Replies decoded at once; it bounds the memory of keys and values."""

    _live: _Live | None = PrivateAttr(None)

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        """Loads the engine's own copy of `context.model` on `context.device`. Leaving stops the
        decoding at its next token; requests still waiting get an EngineError."""
        from trainer.ops.devices import compute_dtype

        precision = compute_dtype(self.dtype, context.device)
        model = await asyncio.to_thread(self._load_model, context, precision)
        live = self._live = _Live(model, context.renderer, precision)
        try:
            yield
        finally:
            self._live = None
            for item in live.pending + live.running:
                settle(item.future, EngineError("the engine was closed"))
                if item.row is not None:
                    item.row.abandoned = True
            if live.runner is not None:
                await live.runner

    def _load_model(self, context: Context, precision: str) -> ServedModel:
        from trainer.ops.served_model import ServedModel

        return ServedModel(
            context.model.load(dtype=precision, attn_implementation="sdpa"),
            context.device,
            cache=self.cache,
            stop_ids=context.renderer.stop_ids,
            banned_ids=context.renderer.banned_ids,
        )

    @property
    def precision(self) -> str:
        return self._opened.precision

    @property
    def _opened(self) -> _Live:
        if self._live is None:
            raise EngineError("the hf engine is not open: use `async with engine.open(context)`")
        return self._live

    async def sample(self, request: Request) -> Completion:
        """Raises EngineError if the prompt is empty, too long or does not fit its images, or if
        the model's logits are not finite. A reply that reaches the model's longest input ends
        with `length`, as one that reaches `max_tokens` does."""
        live = self._opened
        item = _Pending(request, asyncio.get_running_loop().create_future())
        live.pending.append(item)
        if live.runner is None or live.runner.done():
            live.runner = asyncio.create_task(self._serve(live))
        try:
            return await item.future
        finally:
            if item.row is not None:
                item.row.abandoned = True  # only matters if the caller was cancelled

    async def _serve(self, live: _Live) -> None:
        """Consumes `pending` until it is empty. Waits for: a quiet event loop, then `busy`."""
        while live.pending:
            await quiet(live.pending)
            async with live.busy:
                waiting = [item for item in live.pending if not item.future.done()]
                waiting.sort(key=lambda item: item.request.order)
                live.running = waiting[: self.max_batch_rows]
                live.pending[:] = waiting[self.max_batch_rows :]
                try:
                    await asyncio.to_thread(_decode, live, asyncio.get_running_loop())
                except Exception as error:  # goes to everybody who waits for this batch
                    for item in live.running:
                        settle(item.future, error)
                live.running = []

    async def logprobs(self, rows: list[tuple[list[int], dict[str, Any]]]) -> list[list[float]]:
        """As the base says, banned ids outside of the softmax: a banned token (an image placeholder
        of the prompt) has -inf. Raises EngineError for rows that `sample` would refuse."""
        live = self._opened
        async with live.busy:
            return await asyncio.to_thread(
                lambda: live.model.logprobs([live.model.path(*row, room=0) for row in rows])
            )

    async def load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Waits for the batch being decoded. Raises EngineError naming a weight that is unknown,
        has another shape or is missing."""
        live = self._opened
        async with live.busy:
            await asyncio.to_thread(live.model.load, weights)
            live.version = version

    def any_token(self) -> int:
        model = self._opened.model
        return next(i for i in range(model.vocabulary) if i not in model.banned_ids)


def _decode(live: _Live, loop: asyncio.AbstractEventLoop) -> None:
    """One batch, in a worker thread: futures are settled on the event loop as rows end."""
    from trainer.ops.generation import Row

    paths: dict[Any, PromptPath] = {}
    stop_texts: dict[tuple[str, ...], Any] = {}
    waiting: dict[Row, _Pending] = {}
    for item in live.running:
        request = item.request
        try:
            row = Row(
                path=_shared_path(live, request, paths),
                settings=request.sampling,
                seed=request.seed,
                most=live.model.room(request.tokens, request.sampling.max_tokens),
                stop_text=_stop_text(live, request.sampling.stop, stop_texts),
            )
        except EngineError as error:
            loop.call_soon_threadsafe(settle, item.future, error)
            continue
        item.row = row
        if item.future.done():  # the caller gave up before it could see the row
            row.abandoned = True
        waiting[row] = item

    def done(row: Row) -> None:
        loop.call_soon_threadsafe(settle, waiting[row].future, _outcome(row, live.version))

    if waiting:
        live.model.sample(list(waiting), done)


def _shared_path(live: _Live, request: Request, paths: dict[Any, PromptPath]) -> PromptPath:
    """Members of a group have equal tokens and the very same image tensors."""
    images = tuple((name, id(value)) for name, value in sorted(request.inputs.items()))
    key = (tuple(request.tokens), images)
    if key not in paths:
        paths[key] = live.model.path(request.tokens, request.inputs)
    return paths[key]


def _stop_text(live: _Live, strings: tuple[str, ...], known: dict[tuple[str, ...], Any]) -> Any:
    from trainer.ops.stopping import StopText

    if strings and strings not in known:
        known[strings] = StopText(strings, live.renderer.decode)
    return known.get(strings)


def _outcome(row: Row, version: int) -> Completion | EngineError:
    if row.finish == "not_finite":
        return EngineError(
            f"the model's logits are not finite after {len(row.tokens)} tokens (weights of version "
            f"{version}): training has diverged, or the precision is too low"
        )
    return Completion(row.tokens, row.logprobs, [version] * len(row.tokens), row.finish)
