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
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, PrivateAttr, model_validator

from trainer.engines.base import Completion, Engine, Request
from trainer.errors import ConfigError, EngineError, StaleWeights
from trainer.ops.fleet import Deadlines, Fleet, Member, MemberFault
from trainer.ops.server_process import ServerProcess, free_port
from trainer.ops.transfer_client import TransferClient
from trainer.ops.vllm_arguments import (
    VllmArguments,
    model_folder,
    sampling_arguments,
    scratch_folder,
)
from trainer.ops.vllm_launch import server_command, server_environment
from trainer.ops.vllm_replies import choice, completion, largest_gap, prompt_scores

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.context import Context
    from trainer.renderer import Renderer
    from trainer.vllm_adapter.images import Packer

    Row = tuple[list[int], dict[str, Any]]

_GENERATE = "/inference/v1/generate"
_AGREE = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.1}
"""Nats by which two servers with the same weights may differ."""
_HEALTH = {"temperature": 0, "max_tokens": 1, "ignore_eos": True, "detokenize": False}
_SCORE = {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False}


@dataclass(slots=True)
class _Live:
    fleet: Fleet
    renderer: Renderer
    precision: str
    config: Any
    vocabulary: int
    max_length: int
    files: Path
    """Where the weights of the current version lie: a server that comes back reads them."""
    version: int | None = None
    """None before the first sync."""
    paths: list[Path] = field(default_factory=list)
    packer: Packer | None = None
    """Of images; needs vLLM here too."""
    number: count[int] = field(default_factory=count)
    """Of loads: one version may be sent twice."""
    proof: tuple[list[Row], list[list[float]]] | None = None
    """What the servers said of the probe with the current weights."""


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
    """Seconds one step of a weight sync may take."""
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
            fleet = Fleet(
                self._members(context, model, Path(files)),
                Deadlines(
                    start=self.start_deadline,
                    request=self.request_deadline,
                    control=self.control_deadline,
                    health=self.health_deadline,
                ),
                retries=self.retries,
                restarts=self.restarts,
                health_every=self.health_every,
                prepare=self._prepare,
                alive=self._alive,
                log=context.folder / "vllm" / "events.log",
            )
            self._live = _Live(
                fleet,
                context.renderer,
                self.precision_on(context.device),
                config,
                text.vocab_size,
                self.max_model_len or text.max_position_embeddings,
                Path(files),
            )
            try:
                await stack.enter_async_context(fleet.open())
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
                    context.device, gpus=self.gpus[number * width : (number + 1) * width]
                ),
                context.folder / "vllm" / f"server-{number}.log",
                remove=(model, files),
            )
            found.append(member(f"vLLM server {number}", f"http://127.0.0.1:{port}", process))
        return found

    @property
    def precision(self) -> str:
        return self._opened.precision

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
        body = self._body(request.tokens, request.inputs, sampling)
        read = partial(
            completion,
            vocabulary=live.vocabulary,
            banned=live.renderer.banned_ids,
            most=sampling["max_tokens"],
            started=live.version or 0,
        )
        return Completion(*await live.fleet.call(_GENERATE, body, read))

    def _body(
        self, tokens: list[int], inputs: dict[str, Any], sampling: dict[str, Any]
    ) -> dict[str, Any]:
        body: dict[str, Any] = {"token_ids": tokens, "sampling_params": sampling}
        if inputs:
            live = self._opened
            if live.packer is None:
                from trainer.vllm_adapter.images import Packer

                live.packer = Packer(live.config)
            body["features"] = live.packer.features(tokens, inputs)
        return body

    async def logprobs(self, rows: list[Row]) -> list[list[float]]:
        """As the base. The first call after a sync asks every server: raises StaleWeights if they
        do not agree, naming the one that differs."""
        live = self._opened
        if live.proof is not None:
            bodies = [self._body(tokens, inputs, _SCORE) for tokens, inputs in rows]
            calls = (
                live.fleet.call(_GENERATE, body, lambda a, t=tokens: prompt_scores(a, t))
                for body, (tokens, _) in zip(bodies, rows, strict=True)
            )
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
            if not gap <= _AGREE[live.precision]:
                raise StaleWeights(
                    f"after the sync of version {live.version} {name} and {first} differ by "
                    f"{gap:.3g} nats on the probe: one of them serves other weights"
                )
        live.proof = (rows, agreed)
        return agreed

    async def _score(self, member: Member, rows: list[Row]) -> list[list[float]]:
        async def one(tokens: list[int], inputs: dict[str, Any]) -> list[float]:
            body = self._body(tokens, inputs, _SCORE)
            answer = await member.control(_GENERATE, body, deadline=self.control_deadline)
            return prompt_scores(answer, tokens)

        return list(await asyncio.gather(*(one(*row) for row in rows)))

    async def load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Writes files that the servers read, one while the next is written. Replies being
        written are paused meanwhile and go on with the new weights. Raises EngineError for weights
        that are unknown or missing; a server that fails is taken out."""
        from trainer.ops.weight_files import remove, write_buckets

        live = self._opened
        folder = live.files / f"{next(live.number)}-version-{version}"
        limit = self.bucket_mib * 2**20
        files = write_buckets(weights, folder, dtype=live.precision, limit=limit)
        async with live.fleet.alone() as members:
            old, live.paths, live.proof, live.version = live.paths, [], None, version
            members = await live.fleet.each(members, self._begin)
            path = await asyncio.to_thread(next, files, None)
            while path is not None:
                live.paths.append(path)
                after = asyncio.create_task(asyncio.to_thread(next, files, None))
                members = await live.fleet.each(members, lambda m, p=path: self._send(m, p))
                path = await after
            await live.fleet.each(members, self._finish)
            if old:
                await asyncio.to_thread(remove, old[0].parent)

    async def load_through(
        self, native: str, send: Callable[[TransferClient], None], version: int
    ) -> None:
        """A server that fails meanwhile ends the run: the others wait for it inside the send."""
        live = self._opened
        async with live.fleet.alone() as members:
            live.paths, live.proof, live.version = [], None, version
            for member in members:
                if member.calls:
                    await self._control(member, "/pause?mode=keep")
            worlds = [await self._world(member) for member in members]
            peers = [(member.name, member.starts) for member in members]

            async def post(index: int, path: str, body: Any) -> Any:
                return await self._control(members[index], path, body)

            client = TransferClient(native, worlds, version, post, peers)
            try:
                await asyncio.to_thread(send, client)
            except MemberFault as fault:
                raise EngineError(f"a vLLM server failed during a sync: {fault}") from fault
            await live.fleet.each(members, self._renew)

    async def _world(self, member: Member) -> int:
        answer = await member.client.get("/get_world_size", timeout=self.control_deadline)
        return answer.json()["world_size"]

    async def _begin(self, member: Member) -> None:
        if member.calls:
            await self._control(member, "/pause?mode=keep")
        await self._control(member, "/start_weight_update")

    async def _send(self, member: Member, path: Path) -> None:
        await self._control(member, "/update_weights", {"update_info": {"path": str(path)}})

    async def _finish(self, member: Member) -> None:
        live = self._opened
        await self._control(member, "/finish_weight_update", {"weight_version": str(live.version)})
        await self._renew(member)

    async def _renew(self, member: Member) -> None:
        """After an update: nothing may be missing, and nothing that was computed before is kept."""
        missing = await self._rpc(member, "cohort_missing")
        if missing:
            raise EngineError(f"weights were not sent, or only in part: {', '.join(missing)}")
        done = await self._control(member, "/reset_prefix_cache?reset_running_requests=true")
        if not done["success"]:
            raise MemberFault("the prefix cache of the old weights could not be dropped")
        if self._opened.renderer.image_processor is not None:
            await self._control(member, "/reset_encoder_cache")
        await self._control(member, "/resume")

    async def _prepare(self, member: Member) -> bool:
        """A server that just started: what may not be sampled, the weights, and the proof. False
        if the current weights were not kept: they come with the next sync."""
        live = self._opened
        await self._rpc(member, "cohort_ban", [list(live.renderer.banned_ids)])
        await self._control(member, "/init_weight_transfer_engine", {"init_info": {}})
        if not live.paths:
            return live.version is None
        await self._control(member, "/start_weight_update")
        for path in live.paths:
            await self._send(member, path)
        await self._finish(member)
        if live.proof is not None:
            rows, agreed = live.proof
            gap = largest_gap(agreed, await self._score(member, rows))
            if not gap <= _AGREE[live.precision]:
                raise MemberFault(
                    f"it differs by {gap:.3g} nats from the other servers after the sync of "
                    f"version {live.version}"
                )
        return True

    async def _alive(self, member: Member) -> None:
        body = self._body([self.any_token()], {}, _HEALTH)
        answer = await member.control(_GENERATE, body, deadline=self.fleet.deadlines.health)
        if len(choice(answer).get("token_ids") or ()) != 1:
            raise MemberFault(f"asked for one token it answered {str(answer)[:200]}")

    async def _control(self, member: Member, path: str, body: Any = None) -> Any:
        return await member.control(path, body, deadline=self.control_deadline)

    async def _rpc(self, member: Member, method: str, args: list[Any] | None = None) -> Any:
        body = {"method": method, "args": args or []}
        return (await self._control(member, "/collective_rpc", body))["results"][0]

    async def sketches(self, names: list[str]) -> dict[str, list[float]]:
        members = await self._opened.fleet.wait_ready()
        return await self._rpc(members[0], "cohort_sketch", [names])

    def any_token(self) -> int:
        live = self._opened
        return next(i for i in range(live.vocabulary) if i not in live.renderer.banned_ids)

    async def health(self) -> bool:
        """True if every server generates a token."""
        fleet = self._opened.fleet
        return len(await fleet.each(fleet.ready, self._alive)) == len(fleet.members)
