"""Servers that die, hang and lie. The servers are real processes that speak HTTP; what they do
with the next request stands in a file that the test writes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from trainer.errors import EngineError
from trainer.ops.fleet import Fleet
from trainer.ops.member import Deadlines, Member, MemberFault
from trainer.ops.server_process import ServerProcess, free_port

SERVER = """
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
port, orders = int(sys.argv[1]), Path(sys.argv[2])
if orders.read_text() == "refuse to start":
    raise SystemExit(open("/there/is/no/such/file"))
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def reply(self, text, code=200):
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(text.encode())
    def do_GET(self):
        self.reply("{}")
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        order = orders.read_text()
        if order == "hang" or (order == "hang on work" and self.path == "/work"):
            time.sleep(3600)
        if order == "hang up once":
            orders.write_text("work")
            self.close_connection = True
            return self.connection.shutdown(2)
        if order == "slow":
            time.sleep(0.3)
        if order == "toil" and self.path == "/work":
            until = time.monotonic() + 2
            while time.monotonic() < until:
                sum(range(10000))
        if order == "lie" and self.path == "/work":
            return self.reply("{}")
        if order == "babble" and self.path == "/work":
            return self.reply("<html>")
        if order == "fail" and self.path == "/work":
            return self.reply("out of memory", 500)
        if order == "refuse":
            return self.reply("out of range float values", 400)
        if body["value"] < 0:
            return self.reply("negative", 400)
        self.reply(json.dumps({"double": 2 * body["value"], "port": port}))
    def log_message(self, *args):
        pass
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def read(answer: Any) -> int:
    if "double" not in answer:
        raise MemberFault(f"nonsense: {answer}")
    return answer["double"]


class Farm:
    """A fleet of such servers."""

    def __init__(self, folder: Path, size: int, **settings: Any):
        script = folder / "server.py"
        script.write_text(SERVER)
        self.orders = [folder / f"orders-{i}" for i in range(size)]
        self.prepared: list[str] = []
        self.late = False
        members = []
        for i, orders in enumerate(self.orders):
            orders.write_text("work")
            port = free_port()
            command = [sys.executable, str(script), str(port), str(orders)]
            process = ServerProcess(command, {}, folder / f"server-{i}.log")
            url = f"http://127.0.0.1:{port}"
            members.append(Member(f"server {i}", url, process, httpx.AsyncClient(base_url=url)))
            members[-1].client.timeout = None
        health = settings.pop("health", 60)  # a busy machine is slow, and no fault
        request = settings.pop("request", 60)
        stall = settings.pop("stall", 60)
        deadlines = Deadlines(start=60, request=request, control=60, stall=stall, health=health)
        self.fleet = Fleet(
            members,
            deadlines,
            **{"retries": 3, "restarts": 2, "health_every": 0.2} | settings,
            prepare=self.prepare,
            alive=self.alive,
            log=folder / "events.log",
        )

    async def prepare(self, member: Member) -> bool:
        self.prepared.append(member.name)
        return not self.late

    async def alive(self, member: Member) -> None:
        read(await member.control("/health", {"value": 1}, deadline=self.fleet.deadlines.health))

    async def work(self, n: int) -> list[int]:
        calls = (self.fleet.call("/work", {"value": i}, read) for i in range(n))
        return list(await asyncio.gather(*calls))

    def order(self, index: int, order: str) -> None:
        self.orders[index].write_text(order)

    def pid(self, index: int) -> int:
        """Of the server itself, below its guard."""
        process = self.fleet.members[index].process
        return psutil.Process(process.pid).children()[0].pid

    async def all_back(self) -> None:
        async with asyncio.timeout(60):
            while len(self.fleet.ready) < len(self.fleet.members):
                await asyncio.sleep(0.02)


@pytest.fixture
def farm(tmp_path: Path) -> Callable[..., Any]:
    @asynccontextmanager
    async def start(size: int = 2, **settings: Any) -> AsyncIterator[Farm]:
        made = Farm(tmp_path, size, **settings)
        async with made.fleet.open():
            yield made

    return start


DOUBLES = [2 * i for i in range(20)]


async def test_work_is_shared_out(farm):
    async with farm() as it:
        it.order(0, "slow")
        it.order(1, "slow")
        assert await it.work(20) == DOUBLES
        assert [member.served for member in it.fleet.members] == [10, 10]
        assert it.prepared == ["server 0", "server 1"] or it.prepared == ["server 1", "server 0"]


async def test_killed_in_the_middle_nothing_is_lost_and_it_comes_back(farm):
    async with farm() as it:
        it.order(0, "hang on work")
        task = asyncio.create_task(it.work(20))
        await asyncio.sleep(0.2)
        it.order(0, "work")
        os.kill(it.pid(0), signal.SIGKILL)
        assert await task == DOUBLES
        await it.all_back()
        assert it.prepared.count("server 0") == 2
        assert "ended with signal SIGKILL" in it.fleet.members[0].reason


@pytest.mark.parametrize("order", ["lie", "babble", "fail"])
async def test_nonsense_is_asked_again_elsewhere(farm, order):
    async with farm() as it:
        it.order(1, order)
        assert await it.work(20) == DOUBLES
        assert it.fleet.faults[0].startswith("server 1: ")
        it.order(1, "work")
        await it.all_back()
        assert await it.work(20) == DOUBLES


async def test_nonsense_to_a_command_takes_that_server_out(farm):
    async with farm() as it:
        it.order(0, "babble")

        async def command(member: Member) -> None:
            await member.control("/work", {"value": 1}, deadline=60)

        assert await it.fleet.each(it.fleet.members, command) == [it.fleet.members[1]]
        assert "not JSON: <html>" in it.fleet.faults[0]


async def test_one_that_hangs_is_found_by_its_health(farm):
    async with farm(health=0.5) as it:
        it.order(0, "hang")
        task = asyncio.create_task(it.work(20))
        await asyncio.sleep(0.1)
        assert not task.done()
        async with asyncio.timeout(60):
            while not it.fleet.faults:
                await asyncio.sleep(0.02)
            it.fleet.deadlines = replace(it.fleet.deadlines, health=60)
            it.order(0, "work")
            assert await task == DOUBLES
        assert it.fleet.faults[0] == "server 0: health: /health: no answer within 0.5 s"
        await it.all_back()


@pytest.mark.parametrize("how", ["front end", "engine", "both"])
async def test_one_that_is_stuck_in_a_sync_is_found_long_before_its_deadline(farm, how):
    """While weights change there is no token to ask for: a sign of life has to do."""
    async with farm(stall=0.5) as it:
        it.order(0, "work" if how == "front end" else "hang on work")  # no thread computes
        frozen = psutil.Process(it.pid(0))
        if how != "engine":
            frozen.suspend()

        async def step(member: Member) -> None:
            deadlines = it.fleet.deadlines
            await member.control(
                "/work", {"value": 1}, deadline=deadlines.control, stall=deadlines.stall
            )

        async with asyncio.timeout(30), it.fleet.alone() as members:
            left = await it.fleet.each(members, step)
        assert left == [it.fleet.members[1]]
        seen = "computed nothing" if how == "engine" else "/health gives ReadTimeout within 0.5 s"
        assert seen in it.fleet.faults[0]
        it.order(0, "work")
        await it.all_back()
        assert it.prepared.count("server 0") == 2


async def test_one_that_works_may_take_its_time(farm):
    async with farm(1, stall=0.5) as it:
        it.order(0, "toil")
        (member,) = it.fleet.members
        answer = await member.control("/work", {"value": 1}, deadline=60, stall=0.5)
        assert answer["double"] == 2
        assert not it.fleet.faults


async def test_a_step_on_one_that_works_ends_with_its_deadline(farm):
    async with farm(1) as it:
        it.order(0, "toil")
        (member,) = it.fleet.members
        with pytest.raises(MemberFault, match=r"/work: no answer within 0\.3 s"):
            await member.control("/work", {"value": 1}, deadline=0.3, stall=0.5)


async def test_a_request_that_is_refused_harms_no_server(farm):
    async with farm() as it:
        with pytest.raises(EngineError, match="refuses /work: negative"):
            await it.fleet.call("/work", {"value": -1}, read)
        assert len(it.fleet.ready) == 2
        assert not it.fleet.faults


async def test_a_server_that_refuses_everything_is_not_well(farm):
    async with farm() as it:
        it.order(1, "refuse")
        assert await it.work(20) == DOUBLES
        assert "server 1 refuses /" in it.fleet.faults[0]  # found by a request, or by its health
        it.order(1, "work")
        await it.all_back()


async def test_a_request_that_always_fails_ends_the_run(farm):
    async with farm(retries=2) as it:
        for index in range(2):
            it.order(index, "fail")
        with pytest.raises(EngineError, match=r"failed 3 times: server \d: /work: 500 out of mem"):
            await it.work(1)


async def test_no_server_left(farm):
    async with farm(1, retries=9) as it:
        it.order(0, "refuse to start")
        os.kill(it.pid(0), signal.SIGKILL)
        with pytest.raises(EngineError, match=r"(?s)no vLLM server is left: .*No such file"):
            await it.work(1)


async def test_a_start_that_fails_shows_the_servers_own_words(tmp_path):
    it = Farm(tmp_path, 1)
    it.order(0, "refuse to start")
    with pytest.raises(EngineError, match=r"(?s)server 0 did not start.*Traceback.*No such file"):
        async with it.fleet.open():
            pass


async def test_while_alone_no_request_starts(farm):
    async with farm() as it:
        async with it.fleet.alone() as members:
            assert len(members) == 2
            task = asyncio.create_task(it.work(4))
            await asyncio.sleep(0.1)
            assert sum(member.served for member in members) == 0
        assert await task == DOUBLES[:4]


async def test_a_server_that_comes_back_may_have_to_wait_for_the_next_sync(farm):
    async with farm() as it:
        it.late = True
        os.kill(it.pid(0), signal.SIGKILL)
        async with asyncio.timeout(60):
            while not it.fleet.members[0].standby:
                await asyncio.sleep(0.02)
        served = it.fleet.members[0].served
        assert await it.work(6) == DOUBLES[:6]
        assert it.fleet.members[0].served == served
        async with it.fleet.alone() as members:
            assert len(members) == 2
        assert len(it.fleet.ready) == 2


async def test_a_broken_connection_is_no_dead_server(farm):
    async with farm(1) as it:
        it.order(0, "hang up once")
        assert await it.work(1) == [0]
        assert not it.fleet.faults


async def test_lost_and_back_at_once_its_requests_are_asked_again(farm):
    """A server may be back before its callers know that they lost it."""
    async with farm(1) as it:
        it.order(0, "slow")
        tasks = [asyncio.create_task(it.work(4)) for _ in range(3)]
        await asyncio.sleep(0.1)
        member = it.fleet.members[0]
        it.fleet.lose(member, "a test")
        member.lost.clear()
        member.ready = True
        assert await asyncio.gather(*tasks) == [DOUBLES[:4]] * 3


async def test_what_an_earlier_life_left_unanswered_does_not_end_the_next(farm):
    async with farm(1) as it:
        member = it.fleet.members[0]
        life = member.starts
        it.fleet.lose(member, "a test", life)
        await it.all_back()
        it.fleet.lose(member, "a late answer to that", life)
        assert member.ready
        assert it.fleet.faults == ["server 0: a test"]
        assert await it.work(4) == DOUBLES[:4]
        assert member.starts == life + 1


async def test_a_cancelled_caller_takes_no_server_with_it(farm):
    async with farm() as it:
        it.order(0, "slow")
        it.order(1, "slow")
        task = asyncio.create_task(it.work(4))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not it.fleet.faults
        assert not any(member.calls for member in it.fleet.members)


async def test_servers_end_with_the_fleet_and_with_the_trainer(farm, tmp_path):
    async with farm() as it:
        pids = [it.pid(0), it.pid(1)]
    assert not any(map(psutil.pid_exists, pids))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    trainer, _, sleeper = await trainer_with_a_server(tmp_path / "log", scratch)
    trainer.kill()
    await trainer.wait()
    await gone(sleeper)
    assert not scratch.exists()


async def test_servers_end_if_trainer_and_guard_are_killed_at_once(tmp_path):
    scratch = tmp_path / "scratch"
    trainer, guard, sleeper = await trainer_with_a_server(tmp_path / "log", scratch)
    guard.suspend()  # it cannot end anything any more
    trainer.kill()
    guard.kill()
    await trainer.wait()
    await gone(sleeper)


async def trainer_with_a_server(log: Path, scratch: Path) -> tuple[Any, Any, Any]:
    """The process of a trainer, of its guard, and of the server."""
    code = (
        "import asyncio, sys, pathlib\n"
        "from trainer.ops.server_process import ServerProcess\n"
        "async def main():\n"
        "    log, folder = map(pathlib.Path, sys.argv[1:])\n"
        "    p = ServerProcess(['sleep', '600'], {}, log, remove=[folder])\n"
        "    await p.start(); print(p.pid, flush=True); await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    trainer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, str(log), str(scratch)), stdout=asyncio.subprocess.PIPE
    )
    guard = psutil.Process(int(await trainer.stdout.readline()))
    while not guard.children() or guard.children()[0].name() != "sleep":
        await asyncio.sleep(0.02)
    return trainer, guard, guard.children()[0]


async def gone(process: Any) -> None:
    until = time.monotonic() + 60
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "the server outlived its trainer"
        await asyncio.sleep(0.02)
