"""`cohort serve`: what it starts, says and starts again. The servers here are small ones that only
answer /health; the real ones are in the tests of the vllm_server engine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import httpx
import pytest

from trainer import serve as serve_module
from trainer.cli import main
from trainer.errors import EngineError
from trainer.ops.server_process import free_port
from trainer.serve import serve
from trainer.yaml import load_recipe

pytestmark = pytest.mark.slow

RECIPE = """
name: served
steps: 1
model: {type: tiny_text, hidden: 24, intermediate: 32, layers: 1}
prompts: synthetic/arithmetic
reward: text/exact
engine: {type: vllm_server, workers: 1, restarts: 1, start_deadline: 30}
"""
HEALTHY = "import http.server as h, os, sys, time; print('pid', os.getpid(), flush=True); " + (
    "H = type('H', (h.BaseHTTPRequestHandler,), {'do_GET': lambda s: s.send_response(200) or "
    "s.end_headers()}); h.HTTPServer(('127.0.0.1', int(sys.argv[4])), H).serve_forever()"
)
BROKEN = "raise RuntimeError('no memory for the cache')"


@pytest.fixture
def start(tmp_path, monkeypatch):
    """`start(code, workers=1, "key=value", ...)`: serve() as a task, the lines it says, and its
    first port."""

    def run(code: str, workers: int = 1, *more: str) -> tuple[asyncio.Task[None], list[str], int]:
        def command(folder, arguments, *, host, port):
            assert (folder / "config.json").exists()
            return [sys.executable, "-c", code, "--host", host, "--port", str(port)]

        monkeypatch.setattr(serve_module, "server_command", command)
        path = tmp_path / "r.yaml"
        path.write_text(RECIPE)
        overrides = (f"output={tmp_path}", f"engine.workers={workers}", *more)
        (recipe,) = load_recipe(path, overrides=overrides)
        said: list[str] = []
        port = free_port()
        work = serve(recipe, host="127.0.0.1", port=port, say=said.append)
        return asyncio.create_task(work), said, port

    return run


async def _until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.05)


async def test_it_says_where_the_workers_are_and_ends_them(start):
    task, said, port = start(HEALTHY, workers=2)
    await _until(lambda: len(said) == 3)
    first, second = (f"http://127.0.0.1:{p}" for p in (port, port + 1))
    assert sorted(said[:2]) == [first, second]
    assert said[2] == f"for the trainer: engine='{{type: vllm_server, urls: [{first}, {second}]}}'"
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(second)).is_success
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with pytest.raises(httpx.ConnectError):
            await client.get(second)


async def test_a_worker_that_is_killed_comes_back(start, tmp_path):
    task, said, port = start(HEALTHY)
    await _until(lambda: len(said) == 2)
    log = tmp_path / "served" / "serve" / f"server-{port}.log"
    os.kill(int(log.read_text().removeprefix("pid ").split()[0]), signal.SIGKILL)
    await _until(lambda: said.count(f"http://127.0.0.1:{port}") == 2)
    assert any("ended, and is started again" in line for line in said)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("silent", [False, True])
async def test_a_worker_that_hangs_comes_back(start, tmp_path, silent):
    """Its front end may still answer: then it is its engine that says and computes nothing."""
    code = HEALTHY.replace("h.HTTPServer", "h.ThreadingHTTPServer")
    if silent:
        hang = "'do_GET': lambda s: 'is_pau' in s.path and time.sleep(60) or"
        code = code.replace("'do_GET': lambda s:", hang)
    quick = ("engine.health_every=0.2", "engine.stall_deadline=1")
    task, said, port = start(code, 1, *quick)
    await _until(lambda: len(said) == 2)
    if not silent:
        log = tmp_path / "served" / "serve" / f"server-{port}.log"
        os.kill(int(log.read_text().removeprefix("pid ").split()[0]), signal.SIGSTOP)
    await _until(lambda: said.count(f"http://127.0.0.1:{port}") == 2)
    why = "it computed nothing for" if silent else "/health gives ReadTimeout within 1 s"
    assert any("hangs (/is_paused: " in line and why in line for line in said)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_worker_that_never_starts_shows_its_traceback(start):
    task, said, _ = start(BROKEN)
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(task, 60)
    assert caught.group_contains(
        EngineError, match="2 times in a row(.|\n)*no memory for the cache"
    )
    assert said == []


@pytest.mark.parametrize("overrides", [["engine=hf"], ["engine.workers=0", "engine.urls=[a:1]"]])
def test_an_engine_without_workers_is_refused(tmp_path, capsys, overrides):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    assert main(["serve", str(path), *overrides]) == 2
    assert "has no workers to start here" in capsys.readouterr().err
