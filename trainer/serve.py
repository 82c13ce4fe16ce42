"""`cohort serve RECIPE`: the recipe's vLLM servers on this node, for a trainer elsewhere."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.engines.vllm_server import VllmServer
from trainer.errors import ConfigError, EngineError
from trainer.ops.member import Member, MemberFault, Stuck
from trainer.ops.server_process import ServerProcess
from trainer.ops.vllm_arguments import model_folder
from trainer.ops.vllm_launch import server_command, server_environment
from trainer.run_folder import folder_of

if TYPE_CHECKING:
    import httpx

    from trainer.config import Recipe

_POLL_SECONDS = 0.5
_EVERY_ADDRESS = ("0.0.0.0", "::")


async def serve(recipe: Recipe, *, host: str, port: int, say: Callable[[str], None]) -> None:
    """Runs `engine.workers` servers on `port`, `port + 1`, ... until it is cancelled (Ctrl-C), and
    starts again those that end or hang.

    `say` gets each URL when its server answers, then the line that names them all in the trainer's
    recipe. Weights come with the trainer's first sync; both nodes need the same model, and see
    `engine.transfer_folder` under one path. Output goes to `serve/` of the run folder. Raises
    `ConfigError` for an engine without workers; `EngineError`, with the server's own traceback, for
    one that ends `engine.restarts` times in a row before it answers.
    """
    engine = recipe.engine
    if not isinstance(engine, VllmServer) or not engine.workers:
        raise ConfigError(
            f"engine: {engine.name()} has no workers to start here; on this node add "
            "engine.type=vllm_server engine.workers=1 engine.urls=[]"
        )
    urls = [f"http://{_reachable(host)}:{port + index}" for index in range(engine.workers)]
    answering: set[str] = set()

    def ready(url: str) -> None:
        say(url)
        answering.add(url)
        if len(answering) == len(urls):
            say(f"for the trainer: engine='{{type: vllm_server, urls: [{', '.join(urls)}]}}'")

    with model_folder(recipe.model) as model:
        servers = _servers(recipe, engine, model, host, port)
        try:
            async with asyncio.TaskGroup() as tasks:
                for url, server in zip(urls, servers, strict=True):
                    tasks.create_task(_keep(engine, url, server, ready, say))
        finally:
            await asyncio.gather(*(server.stop() for server in servers))


def _servers(
    recipe: Recipe, engine: VllmServer, model: Path, host: str, port: int
) -> list[ServerProcess]:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    vision = recipe.model.renderer().image_processor is not None
    width = engine.tensor_parallel_size
    folder = folder_of(recipe) / "serve"
    return [
        ServerProcess(
            server_command(
                model,
                engine.vllm_arguments(device, vision=vision, seed=recipe.seed + index),
                host=host,
                port=port + index,
            ),
            server_environment(
                device,
                gpus=engine.gpus[index * width : (index + 1) * width],
                adapters=bool(engine.adapter_rank),
            ),
            folder / f"server-{port + index}.log",
        )
        for index in range(engine.workers)
    ]


async def _keep(
    engine: VllmServer,
    url: str,
    server: ServerProcess,
    ready: Callable[[str], None],
    say: Callable[[str], None],
) -> None:
    failed = 0
    while failed <= engine.restarts:
        await server.start()
        if await _answers(server, engine.start_deadline):
            failed = 0
            ready(url)
            why = await _end(server, engine)
            say(f"{url} {why}, and is started again:\n{server.last_words()}")
        else:
            failed += 1
        await server.kill()
    raise EngineError(f"{url} did not start {failed} times in a row:\n{server.last_words()}")


async def _end(server: ServerProcess, engine: VllmServer) -> str:
    """Returns how it came to its end: a trainer elsewhere sees that it hangs, but only we can start
    it again. Its engine is asked for a word: while it takes weights it gives none, but computes."""
    async with _client(server) as client:
        member = Member("it", str(client.base_url), server, client)
        while server.running:
            with suppress(TimeoutError):
                await asyncio.wait_for(server.wait(), engine.health_every)
            try:
                await member.control(
                    "/is_paused",
                    deadline=engine.control_deadline,
                    stall=engine.stall_deadline,
                    method="GET",
                )
            except Stuck as fault:
                return f"hangs ({fault})"
            except (MemberFault, EngineError):
                continue  # it answers, or is gone
    return "ended"


def _client(server: ServerProcess) -> httpx.AsyncClient:
    import httpx

    port = server.command[server.command.index("--port") + 1]
    host = server.command[server.command.index("--host") + 1]
    address = "127.0.0.1" if host in _EVERY_ADDRESS else host
    return httpx.AsyncClient(base_url=f"http://{address}:{port}", timeout=None, trust_env=False)


async def _answers(server: ServerProcess, deadline: float) -> bool:
    """False if it ends, or says nothing in time."""
    import httpx

    try:
        async with asyncio.timeout(deadline), _client(server) as client:
            while server.running:
                try:
                    answer = await client.get("/health", timeout=5)
                    if answer.is_success:
                        return True
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        pass
    return False


def _reachable(host: str) -> str:
    """A server that listens on every address is asked by the node's name."""
    return socket.gethostname() if host in _EVERY_ADDRESS else host
