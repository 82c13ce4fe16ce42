"""A vLLM of our own that answers chat questions, with weights that do not change."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from pydantic import Field

from trainer.errors import ConfigError, EngineError
from trainer.ops.model_names import located
from trainer.ops.server_process import ServerProcess, free_port
from trainer.ops.vllm_arguments import VllmArguments
from trainer.ops.vllm_launch import (
    MODEL_NAME,
    require_vllm,
    server_command,
    server_environment,
)

if TYPE_CHECKING:
    from pathlib import Path

    from trainer.context import Context

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.5
_OF_POLICIES = ("load_format", "worker_extension_cls", "weight_transfer_config", "logprobs_mode")
"""What a server gets whose weights come from a trainer."""


class StartedChat(VllmArguments):
    """One server for all trainer processes of this node. It is started again when it ends."""

    model: str = Field(min_length=1)
    """Name on the Hub, or folder relative to where Cohort runs, that vLLM loads; it must have a
    chat template."""
    sees: bool = False
    """It is a vision model that will be shown images."""
    port: int | None = Field(None, gt=0, lt=65536)
    """None: a free one. With a fixed one other rewards can share the server through `urls`."""
    gpus: tuple[int, ...] = ()
    """Its devices, `tensor_parallel_size` of them; () leaves it to CUDA."""
    start_deadline: float = Field(900.0, gt=0)
    """Seconds until it answers."""
    restarts: int = Field(3, ge=0)
    """Times it is started again in a run."""

    @property
    def served(self) -> str:
        """The model's name on the server."""
        return MODEL_NAME

    def ready(self) -> None:
        """Raises MissingService without vLLM, ConfigError for a folder that is not there."""
        require_vllm("server.start")
        located(self.model, "server.start.model")

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[str]:
        """Gives its URL once it answers. Output is in `judge/` of the run folder. Raises
        EngineError with the server's own traceback if it does not come up."""
        nodes = int(os.environ.get("LOCAL_WORLD_SIZE", context.world))
        if context.world > nodes:
            raise ConfigError(
                "server.start: the run has several nodes, and a server is started for one; start "
                "it yourself (`vllm serve`) and give server.urls"
            )
        mine = (self.port or free_port(_HOST)) if context.rank == 0 else None
        ports = await asyncio.to_thread(context.gather, mine)
        port = next(port for port in ports if port is not None)
        url = f"http://{_HOST}:{port}"
        process = self._process(context.folder / "judge", context.device, port)
        if context.rank:
            await self._wait(url, None)
            yield f"{url}/v1"
            return
        try:
            await process.start()
            await self._wait(url, process)
            keeper = asyncio.create_task(self._keep(process))
            try:
                yield f"{url}/v1"
            finally:
                keeper.cancel()
                with suppress(asyncio.CancelledError):
                    await keeper
        finally:
            await process.stop()

    def arguments(self, device: str) -> dict[str, Any]:
        """Of `vllm serve`, without the model."""
        found = self.vllm_arguments(device, vision=False, seed=0)
        for name in _OF_POLICIES:
            del found[name]
        if self.sees:
            found["limit_mm_per_prompt"] = {"image": self.images, "video": 0}
        return found

    def _process(self, folder: Path, device: str, port: int) -> ServerProcess:
        model = located(self.model, "server.start.model")
        command = server_command(model, self.arguments(device), host=_HOST, port=port)
        environment = server_environment(device, gpus=self.gpus)
        del environment["VLLM_SERVER_DEV_MODE"]
        environment["HF_HUB_OFFLINE"] = os.environ.get("HF_HUB_OFFLINE", "0")
        return ServerProcess(command, environment, folder / f"server-{port}.log")

    async def _wait(self, url: str, process: ServerProcess | None) -> None:
        import httpx

        said = "it runs in another process; see judge/ in the run folder"
        try:
            async with (
                asyncio.timeout(self.start_deadline),
                httpx.AsyncClient(trust_env=False, timeout=5) as client,
            ):
                while True:
                    try:
                        if (await client.get(f"{url}/health")).is_success:
                            return
                    except httpx.HTTPError:
                        pass
                    if process is not None and not process.running:
                        raise EngineError(
                            f"server.start: the judge's vLLM ended.\n{process.last_words()}"
                        )
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            said = said if process is None else process.last_words()
            raise EngineError(
                f"server.start: the judge's vLLM did not answer within {self.start_deadline:g} s."
                f"\n{said}"
            ) from None

    async def _keep(self, process: ServerProcess) -> None:
        for _ in range(self.restarts):
            await process.wait()
            await process.kill()
            await process.start()
