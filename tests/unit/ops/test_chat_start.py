"""The life of a server that a judge starts, with a small program in vLLM's place."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from trainer.errors import ConfigError, EngineError
from trainer.ops.chat import ChatServer
from trainer.ops.chat_start import StartedChat
from trainer.ops.server_process import ServerProcess, free_port

PROGRAM = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = str(os.getpid()).encode()
        self.send_response(200 if self.path == "/health" else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
if sys.argv[2] == "broken":
    raise RuntimeError("no weights here")
if sys.argv[2] == "mute":
    import time; time.sleep(100)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Small(StartedChat):
    """Starts the program above."""

    def _process(self, folder, device, port):
        command = [sys.executable, "-c", PROGRAM, str(port), self.model]
        return ServerProcess(command, {}, folder / f"server-{port}.log")


def context_of(folder, rank=0, world=1, port=None) -> Any:
    own = [port] + [None] * (world - 1)
    return SimpleNamespace(
        folder=folder,
        device="cpu",
        rank=rank,
        world=world,
        gather=lambda value: [value] if world == 1 else own,
    )


async def pid_of(url):
    async with httpx.AsyncClient(trust_env=False) as client:
        return int((await client.get(url.removesuffix("/v1") + "/health")).text)


async def test_it_lives_as_long_as_the_run_and_comes_back(tmp_path):
    async with Small(model="fine").open(context_of(tmp_path)) as url:
        first = await pid_of(url)
        os.kill(first, signal.SIGKILL)
        until = time.monotonic() + 30
        while True:
            assert time.monotonic() < until
            try:
                if await pid_of(url) != first:
                    break
            except httpx.HTTPError:
                await asyncio.sleep(0.05)
    with pytest.raises(httpx.ConnectError):
        await pid_of(url)


async def test_processes_of_a_node_share_it(tmp_path, monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)  # vLLM sets it in the process it runs in
    port = free_port()
    first = Small(model="fine", port=port).open(context_of(tmp_path, 0, 2, port))
    second = Small(model="never started").open(context_of(tmp_path, 1, 2, port))
    async with first as url, second as same:
        assert url == same == f"http://127.0.0.1:{port}/v1"


async def test_one_that_does_not_come_up(tmp_path):
    with pytest.raises(EngineError, match=r"vLLM ended(.|\n)*RuntimeError: no weights here"):
        async with Small(model="broken").open(context_of(tmp_path)):
            pass
    with pytest.raises(EngineError, match=r"did not answer within 0\.5 s"):
        async with Small(model="mute", start_deadline=0.5).open(context_of(tmp_path)):
            pass


async def test_several_nodes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"several nodes(.|\n)*give server\.urls"):
        async with Small(model="fine").open(context_of(tmp_path, 0, 4)):
            pass


def test_what_vllm_is_told():
    settings = ChatServer(
        start={"model": "some/vlm", "sees": True, "images": 2, "dtype": "float32"}
    )
    assert settings.start is not None
    told = settings.start.arguments("cpu")
    assert told["limit_mm_per_prompt"] == {"image": 2, "video": 0}
    assert told["dtype"] == "float32"
    assert not {"load_format", "worker_extension_cls", "weight_transfer_config"} & told.keys()
    assert "limit_mm_per_prompt" not in StartedChat(model="x").arguments("cpu")
