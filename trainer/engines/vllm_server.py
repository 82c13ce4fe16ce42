"""vLLM servers: `workers` of our own on this node, or `urls` of servers on others.

Each member of a group is a request of its own, to the least busy server. A server that dies, hangs
or answers nonsense is taken out; its requests go elsewhere with the same seeds; it is restarted,
given the current weights, compared with what the others answered, and used again.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import Field, PrivateAttr, model_validator

from trainer.engines.base import Completion, Engine, Request
from trainer.errors import ConfigError, EngineError, StaleWeights
from trainer.ops.claims import Claim
from trainer.ops.fleet import Fleet
from trainer.ops.member import Broken, Deadlines, Member, Refused
from trainer.ops.served_weights import AGREE, ServedWeights
from trainer.ops.server_process import ServerProcess, free_port
from trainer.ops.vllm_arguments import (
    VllmArguments,
    model_folder,
    sampling_arguments,
    scratch_folder,
)
from trainer.ops.vllm_launch import server_command, server_environment
from trainer.ops.vllm_replies import completion, largest_gap, prompt_scores

if TYPE_CHECKING:
    import httpx
    from torch import Tensor

    from trainer.context import Context
    from trainer.ops.adapters import Adapter
    from trainer.ops.transfer_client import TransferClient
    from trainer.renderer import Renderer
    from trainer.vllm_adapter.images import Images, Packer

    Row = tuple[list[int], dict[str, Any]]

T = TypeVar("T")
_GENERATE = "/inference/v1/generate"
_ONE = {
    "temperature": 0,
    "max_tokens": 1,
    "ignore_eos": True,
    "detokenize": False,
    "logprobs": 0,
}
_SCORE = {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False}


@dataclass(slots=True)
class _Live:
    fleet: Fleet
    weights: ServedWeights
    claim: Claim
    """On servers that are not ours."""
    renderer: Renderer
    config: Any
    vocabulary: int
    max_length: int
    packer: Packer | None = None
    """Of images; needs vLLM here too."""


class VllmServer(VllmArguments, Engine):
    workers: int = Field(0, ge=0)
    """Servers to start on this node, by each trainer process."""
    urls: tuple[str, ...] = ()
    """Servers that run already (`cohort serve`); trainer processes share them out."""
    gpus: tuple[int, ...] = ()
    """Devices for our own servers, `tensor_parallel_size` each, in order; () leaves it to CUDA."""
    start_deadline: float = Field(900.0, gt=0)
    """Seconds a server may take until its first token."""
    request_deadline: float = Field(1800.0, gt=0)
    """Seconds one reply may take."""
    control_deadline: float = Field(300.0, gt=0)
    """Seconds one step of a weight sync may take, on a server that works on it."""
    stall_deadline: float = Field(20.0, gt=0)
    """Seconds of such a step after which a server that shows no sign of life counts as hanging: its
    front end does not answer, or (of `workers`) none of its processes computes."""
    health_every: float = Field(15.0, gt=0)
    """A server that finished nothing for so many seconds is asked for one token."""
    health_deadline: float = Field(60.0, gt=0)
    """Seconds for that token; then the server counts as hanging."""
    retries: int = Field(5, ge=0)
    """Faults one request may meet before the run stops."""
    restarts: int = Field(3, ge=0)
    """Attempts in a row to bring a server back."""
    bucket_mib: int = Field(256, gt=0)
    """Size of the files weights travel in; servers read one while the next is written."""
    transfer_folder: Path | None = None
    """Where weights are handed over, seen by trainer and servers under one path. None: memory of
    this node (/dev/shm)."""

    _live: _Live | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.workers) == bool(self.urls):
            raise ValueError("give one of: workers (servers to start), urls (servers that run)")
        return self

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        """Starts or reaches the servers. Each one's output is in `vllm/` of the run folder. Raises
        EngineError with a server's own traceback if it does not start."""
        async with AsyncExitStack() as stack:
            folder = self.transfer_folder or scratch_folder()
            files = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="cohort-weights-", dir=folder)
            )
            model = stack.enter_context(model_folder(context.model))
            config = context.model.config()
            text = config.get_text_config()
            weights = ServedWeights(
                Path(files),
                precision=self.precision_on(context.device),
                bucket=self.bucket_mib * 2**20,
                banned=context.renderer.banned_ids,
                images=context.renderer.image_processor is not None,
            )
            fleet = weights.fleet = Fleet(
                self._members(context, model, Path(files)),
                Deadlines(
                    start=self.start_deadline,
                    request=self.request_deadline,
                    control=self.control_deadline,
                    stall=self.stall_deadline,
                    health=self.health_deadline,
                ),
                retries=self.retries,
                restarts=self.restarts,
                health_every=self.health_every,
                prepare=self._prepare,
                alive=self._alive,
                log=context.folder / "vllm" / "events.log",
            )
            live = self._live = _Live(
                fleet,
                weights,
                Claim(weights.rpc),
                context.renderer,
                config,
                text.vocab_size,
                self.max_model_len or text.max_position_embeddings,
            )
            try:
                await stack.enter_async_context(fleet.open())
                if self.urls:
                    await stack.enter_async_context(live.claim.kept(fleet.members))
                yield
            finally:
                self._live = None

    def _members(self, context: Context, model: Path, files: Path) -> list[Member]:
        import httpx

        def member(name: str, url: str, process: ServerProcess | None) -> Member:
            limits = httpx.Limits(
                max_connections=None, max_keepalive_connections=64, keepalive_expiry=2
            )
            client = httpx.AsyncClient(base_url=url, timeout=None, limits=limits, trust_env=False)
            return Member(name, url, process, client)

        if self.urls:
            mine = self.urls[context.rank :: context.world]
            if not mine:
                raise ConfigError(
                    f"engine.urls: {len(self.urls)} server(s) for {context.world} trainer "
                    "processes; give at least one for each"
                )
            return [member(url, url.rstrip("/"), None) for url in mine]
        vision = context.renderer.image_processor is not None
        found = []
        for index in range(self.workers):
            number = context.rank * self.workers + index
            arguments = self.vllm_arguments(
                context.device, vision=vision, seed=context.seed + number
            )
            port = free_port()
            width = self.tensor_parallel_size
            process = ServerProcess(
                server_command(model, arguments, host="127.0.0.1", port=port),
                server_environment(
                    context.device,
                    gpus=self.gpus[number * width : (number + 1) * width],
                    adapters=bool(self.adapter_rank),
                ),
                context.folder / "vllm" / f"server-{number}.log",
                remove=(model, files),
            )
            found.append(member(f"vLLM server {number}", f"http://127.0.0.1:{port}", process))
        return found

    @property
    def precision(self) -> str:
        return self._opened.weights.precision

    @property
    def fleet(self) -> Fleet:
        """The servers, for publishers and tests."""
        return self._opened.fleet

    @property
    def _opened(self) -> _Live:
        if self._live is None:
            raise EngineError(
                "the vllm_server engine is not open: use `async with engine.open(context)`"
            )
        return self._live

    async def sample(self, request: Request) -> Completion:
        """Waits for: a server, while none is ready; the reply (`request_deadline`)."""
        live = self._opened
        if not request.tokens or len(request.tokens) >= live.max_length:
            raise EngineError(
                f"a prompt of {len(request.tokens)} tokens: the engine takes 1 to "
                f"{live.max_length - 1} (engine.max_model_len, with room for a reply)"
            )
        sampling = sampling_arguments(
            request.sampling,
            seed=request.seed,
            stop_ids=live.renderer.stop_ids,
            room=live.max_length - len(request.tokens),
        )
        with live.weights.reading():
            read = partial(
                completion,
                vocabulary=live.vocabulary,
                banned=live.renderer.banned_ids,
                most=sampling["max_tokens"],
                started=live.weights.version or 0,
                may_change=live.weights.adapter is None,
            )
            row = request.tokens, request.inputs
            return Completion(*await self._call(row, sampling, read))

    async def _call(self, row: Row, sampling: dict[str, Any], read: Callable[[Any], T]) -> T:
        """Of any server. Images travel to each once, ahead of what is asked about them, and are
        named from then on."""
        fleet, inputs = self.fleet, row[1]
        if not inputs:
            return await fleet.call(_GENERATE, self._body(row, sampling), read)
        images = self._images(inputs)

        async def send(member: Member, path: str, body: Any) -> httpx.Response:
            server = member.name, member.starts
            first = self._body(row, _ONE)
            await images.bring(server, lambda: fleet.ask(member, path, first))
            try:
                return await fleet.ask(member, path, body)
            except (Broken, Refused):  # perhaps it has dropped them meanwhile
                images.lost(server)
            return await fleet.ask(member, path, self._body(row, sampling))

        return await fleet.call(_GENERATE, self._body(row, sampling, named=True), read, send=send)

    def _body(self, row: Row, sampling: dict[str, Any], *, named: bool = False) -> dict[str, Any]:
        """`named`: with the names of images alone."""
        live, (tokens, inputs) = self._opened, row
        body: dict[str, Any] = {"token_ids": tokens, "sampling_params": sampling}
        if live.weights.adapter is not None:
            body["model"] = live.weights.adapter
        if inputs:
            body["features"] = self._images(inputs).features(tokens, named=named)
        return body

    def _images(self, inputs: dict[str, Any]) -> Images:
        live = self._opened
        if live.packer is None:
            from trainer.vllm_adapter.images import Packer

            live.packer = Packer(live.config)
        return live.packer.images(inputs)

    async def logprobs(self, rows: list[Row]) -> list[list[float]]:
        """As the base. The first call after a sync asks every server: raises StaleWeights if they
        do not agree, naming the one that differs."""
        live = self._opened
        if live.weights.proof is not None:
            calls = (self._call(row, _SCORE, partial(prompt_scores, tokens=row[0])) for row in rows)
            return list(await asyncio.gather(*calls))
        while True:
            answers: dict[str, list[list[float]]] = {}

            async def ask(member: Member, answers: dict[str, list[list[float]]] = answers) -> None:
                answers[member.name] = await self._score(member, rows)

            await live.fleet.each(await live.fleet.wait_ready(), ask)
            if answers:
                break
        (first, agreed), *others = answers.items()
        for name, other in others:
            gap = largest_gap(agreed, other)
            if not gap <= AGREE[live.weights.precision]:
                raise StaleWeights(
                    f"after the sync of version {live.weights.version} {name} and {first} differ "
                    f"by {gap:.3g} nats on the probe: one of them serves other weights"
                )
        live.weights.proof = (rows, agreed)
        return agreed

    async def _prepare(self, member: Member) -> bool:
        if member.process is None:
            await self._opened.claim.take(member)
        return await self._opened.weights.prepare(member, self._score)

    async def _score(self, member: Member, rows: list[Row]) -> list[list[float]]:
        async def one(row: Row) -> list[float]:
            deadlines = self.fleet.deadlines
            answer = await member.control(
                _GENERATE,
                self._body(row, _SCORE),
                deadline=deadlines.control,
                stall=deadlines.stall,
            )
            return prompt_scores(answer, row[0])

        return list(await asyncio.gather(*map(one, rows)))

    async def load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Replies being written are paused meanwhile and go on with the new weights. Raises
        EngineError for weights that are unknown or missing; a server that fails is taken out."""
        await self._opened.weights.load(weights, version)

    async def load_adapter(
        self, base: Callable[[], Iterable[tuple[str, Tensor]]], adapter: Adapter, version: int
    ) -> None:
        """Replies being written end with the adapter they began with."""
        await self._opened.weights.load_adapter(base, adapter, version)

    async def load_through(
        self, native: str, send: Callable[[TransferClient], None], version: int
    ) -> None:
        """A server that fails meanwhile ends the run: the others wait for it inside the send."""
        await self._opened.weights.load_through(native, send, version)

    async def _alive(self, member: Member) -> None:
        # Names no adapter: a server that just started has none yet.
        body = {"token_ids": [self.any_token()], "sampling_params": _ONE}
        answer = await member.control(_GENERATE, body, deadline=self.fleet.deadlines.health)
        live = self._opened
        completion(
            answer,
            vocabulary=live.vocabulary,
            banned=live.renderer.banned_ids,
            most=1,
            started=0,
            may_change=False,
        )

    async def sketches(self, names: list[str]) -> dict[str, list[float]]:
        live = self._opened
        if live.weights.adapter is not None:  # applied beside the weights: none can be read back
            return {}
        members = await live.fleet.wait_ready()
        return await live.weights.rpc(members[0], "cohort_sketch", [names])

    def any_token(self) -> int:
        live = self._opened
        return next(i for i in range(live.vocabulary) if i not in live.renderer.banned_ids)

    async def health(self) -> bool:
        """True if every server generates a token."""
        fleet = self._opened.fleet
        return len(await fleet.each(fleet.ready, self._alive)) == len(fleet.members)
