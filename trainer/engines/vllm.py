"""vLLM in the trainer's process: one engine per process, on the process's own device.

Requests join the running batch as they come. Weights are taken between two steps: replies that
are being written go on with the new weights, and their tokens carry the version that drew them.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr

from trainer.engines.base import Completion, Engine, Request
from trainer.errors import ConfigError, EngineError, MissingService
from trainer.ops.futures import quiet, settle
from trainer.ops.vllm_arguments import VllmArguments, model_folder, sampling_arguments

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.context import Context
    from trainer.ops.adapters import Adapter
    from trainer.renderer import Renderer
    from trainer.vllm_adapter.local import Finished, LocalEngine


@dataclass(frozen=True, slots=True)
class _Asked:
    key: str
    tokens: list[int]
    inputs: dict[str, Any]
    arguments: dict[str, Any]
    """Of `vllm.SamplingParams`."""
    order: tuple[int, ...] = ()


@dataclass(slots=True)
class _Live:
    local: LocalEngine
    folder: Path
    """Of config, tokenizer and adapters."""
    renderer: Renderer
    precision: str
    vocabulary: int
    arrived: list[_Asked] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    waiting: dict[str, asyncio.Future[Finished]] = field(default_factory=dict)
    number: count[int] = field(default_factory=count)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held for one step, or for one load of weights."""
    runner: asyncio.Task[None] | None = None
    bare: bool = False
    """What was loaded are the weights below the adapters."""


class Vllm(VllmArguments, Engine):
    _live: _Live | None = PrivateAttr(None)

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        """Starts vLLM with random weights: the run's first sync brings the real ones. Raises
        MissingService without vLLM, EngineError with vLLM's own words if it does not start."""
        with model_folder(context.model) as folder:
            local = await asyncio.to_thread(self._start, context, folder)
            live = self._live = _Live(
                local,
                folder,
                context.renderer,
                self.precision_on(context.device),
                context.model.config().get_text_config().vocab_size,
            )
            try:
                yield
            finally:
                self._live = None
                for future in live.waiting.values():
                    settle(future, EngineError("the engine was closed"))
                if live.runner is not None:
                    live.runner.cancel()
                async with live.turn:
                    await asyncio.to_thread(local.close)

    def _start(self, context: Context, folder: Path) -> LocalEngine:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # read when vLLM is imported
        from trainer.vllm_adapter.local import LocalEngine

        vision = context.renderer.image_processor is not None
        if vision and importlib.util.find_spec("torchvision") is None:
            raise MissingService(
                "vLLM in the trainer's process reads images only where torchvision is installed; "
                "engine: {type: vllm_server, workers: 1} does without"
            )
        arguments = self.vllm_arguments(context.device, vision=vision, seed=context.seed)
        if context.world > 1:
            if self.tensor_parallel_size > 1:
                raise ConfigError(
                    f"engine.tensor_parallel_size: {self.tensor_parallel_size} with "
                    f"{context.world} trainer processes: each has an engine of its own, on its own "
                    "device; use 1, or engine: {type: vllm_server, workers: 1, "
                    f"tensor_parallel_size: {self.tensor_parallel_size}}}"
                )
            # vLLM then joins the process group of the trainers, as a group of one.
            arguments["distributed_executor_backend"] = "external_launcher"
        try:
            return LocalEngine(
                folder, arguments, context.renderer.banned_ids, device=context.device
            )
        except (ValueError, RuntimeError, ImportError, OSError) as error:
            raise EngineError(f"vLLM did not start: {error}") from error

    @property
    def precision(self) -> str:
        return self._opened.precision

    @property
    def _opened(self) -> _Live:
        if self._live is None:
            raise EngineError("the vllm engine is not open: use `async with engine.open(context)`")
        return self._live

    async def sample(self, request: Request) -> Completion:
        """A reply that reaches the model's longest input ends with `length`, as one that reaches
        `max_tokens` does. A cancelled caller's request is dropped."""
        live = self._opened
        arguments = sampling_arguments(
            request.sampling,
            seed=request.seed,
            stop_ids=live.renderer.stop_ids,
            room=live.local.max_length - len(request.tokens),
        )
        done = await self._ask(request.tokens, request.inputs, arguments, request.order)
        return Completion(done.tokens, done.logprobs, done.version, done.finish)

    async def _ask(
        self,
        tokens: list[int],
        inputs: dict[str, Any],
        arguments: dict[str, Any],
        order: tuple[int, ...] = (),
    ) -> Finished:
        live = self._opened
        if not tokens or len(tokens) >= live.local.max_length:
            raise EngineError(
                f"a prompt of {len(tokens)} tokens: the engine takes 1 to "
                f"{live.local.max_length - 1} (engine.max_model_len, with room for a reply)"
            )
        key = str(next(live.number))
        future = live.waiting[key] = asyncio.get_running_loop().create_future()
        live.arrived.append(_Asked(key, tokens, inputs, arguments, order))
        if live.runner is None or live.runner.done():
            live.runner = asyncio.create_task(self._serve(live))
        try:
            return await future
        except asyncio.CancelledError:
            live.dropped.append(key)
            raise
        finally:
            live.waiting.pop(key, None)

    async def _serve(self, live: _Live) -> None:
        """Steps until nothing is left. Waits for: a quiet event loop, then `turn`."""
        await quiet(live.arrived)
        while live.arrived or live.dropped or live.local.busy:
            async with live.turn:
                try:
                    await asyncio.to_thread(self._step, live, asyncio.get_running_loop())
                except Exception as error:  # goes to everybody who waits
                    for future in live.waiting.values():
                        settle(future, EngineError(f"vLLM failed: {error!r}"))
                    raise
            await asyncio.sleep(0)

    def _step(self, live: _Live, loop: asyncio.AbstractEventLoop) -> None:
        """In a worker thread: takes what has come, computes a token, hands out what is whole."""
        dropped, live.dropped = live.dropped, []
        if dropped:
            live.local.abort(dropped)
        arrived, live.arrived = live.arrived, []
        for asked in sorted(arrived, key=lambda item: item.order):
            future = live.waiting.get(asked.key)
            if future is None or future.done():
                continue
            try:
                live.local.add(asked.key, asked.tokens, asked.arguments, asked.inputs)
            except EngineError as error:
                loop.call_soon_threadsafe(settle, future, error)
        for done in live.local.step() if live.local.busy else ():
            future = live.waiting.get(done.key)
            if future is not None:
                loop.call_soon_threadsafe(settle, future, done)

    async def logprobs(self, rows: list[tuple[list[int], dict[str, Any]]]) -> list[list[float]]:
        """As the base; scored beside the replies being written."""
        arguments = {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False}
        asked = (self._ask(tokens, inputs, arguments) for tokens, inputs in rows)
        return [done.prompt_logprobs for done in await asyncio.gather(*asked)]

    async def load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Waits for one step at most. Raises EngineError naming weights that were not sent."""
        live = self._opened
        live.bare = False
        async with live.turn:
            try:
                await asyncio.to_thread(live.local.load, weights, version)
            except (RuntimeError, KeyError, ValueError, AssertionError) as error:
                raise EngineError(f"vLLM did not take the weights: {error}") from error

    async def load_adapter(
        self, base: Callable[[], Iterable[tuple[str, Tensor]]], adapter: Adapter, version: int
    ) -> None:
        """Replies being written end with the adapter they began with."""
        from trainer.ops.adapters import write_adapter

        live = self._opened
        if not live.bare:
            await self.load(base(), version)
            live.bare = True
        folder = live.folder / f"adapter-{next(live.number)}"
        await asyncio.to_thread(write_adapter, adapter, folder, dtype=live.precision)
        async with live.turn:
            try:
                await asyncio.to_thread(live.local.load_adapter, folder, version)
            except (RuntimeError, ValueError) as error:
                raise EngineError(f"vLLM did not take the adapter: {error}") from error

    async def sketches(self, names: list[str]) -> dict[str, list[float]]:
        live = self._opened
        async with live.turn:
            return await asyncio.to_thread(live.local.sketches, names)

    async def sleep(self) -> None:
        async with self._opened.turn:
            await asyncio.to_thread(self._opened.local.sleep)

    async def wake(self) -> None:
        async with self._opened.turn:
            await asyncio.to_thread(self._opened.local.wake)

    def any_token(self) -> int:
        live = self._opened
        return next(i for i in range(live.vocabulary) if i not in live.renderer.banned_ids)
