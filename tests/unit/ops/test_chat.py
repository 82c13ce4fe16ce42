"""Questions to a server that misbehaves in every way."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time

import pytest

from trainer.errors import ConfigError, MissingService
from trainer.ops.asking import ServerFault
from trainer.ops.chat import ChatServer
from trainer.ops.server_process import free_port
from trainer.types import ScoreStatus

ASKED = [{"role": "user", "content": "good?"}]


def server(url, **fields):
    return ChatServer(**({"urls": (url,), "model": "m", "backoff": 0.01, "retries": 2} | fields))


async def ask(settings, messages=ASKED, **options):
    async with settings.open(None) as chat:
        return await chat.ask(messages, **options)


async def test_the_request(chat_double, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    settings = server(
        f"{chat_double.url}/chat/completions/",
        key_env="JUDGE_KEY",
        temperature=0.5,
        extra={"top_p": 0.9},
    )
    assert settings.urls == (chat_double.url,)
    assert await ask(settings, sample=3) == "<score>7</score>"
    assert chat_double.bodies == [
        {
            "model": "m",
            "messages": ASKED,
            "temperature": 0.5,
            "max_tokens": 1024,
            "top_p": 0.9,
            "seed": 3,
        }
    ]
    assert chat_double.paths == ["/v1/chat/completions"]
    assert chat_double.keys == ["Bearer secret"]
    assert "secret" not in settings.model_dump_json()


PASSING = [
    (500, {}, b"boom"),
    (503, {}, b""),
    (429, {"retry-after": "0"}, b"slow down"),
    (408, {}, b""),
    (200, {}, b"<html>hello</html>"),
    (200, {}, b'{"choices": []}'),
    (200, {}, b'{"error": {"message": "overloaded"}}'),
    (200, {}, b"\xff\xfe\x00"),
    (200, {}, b"[" * 100_000),
    (200, {}, b'{"choices": [{"message": {"content": 7}}]}'),
    "!half",
    "!close",
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda f: str(f)[:30])
async def test_a_fault_that_passes(chat_double, fault):
    chat_double.says = lambda body, nth: fault if nth < 2 else "yes"
    assert await ask(server(chat_double.url)) == "yes"
    assert len(chat_double.bodies) == 3


@pytest.mark.parametrize("fault", PASSING, ids=lambda f: str(f)[:30])
async def test_a_fault_that_stays(chat_double, fault):
    chat_double.says = lambda body, nth: fault
    with pytest.raises(ServerFault, match="the server did not answer: ") as raised:
        await ask(server(chat_double.url))
    assert raised.value.status is ScoreStatus.RAISED
    assert len(chat_double.bodies) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 302])
async def test_what_is_refused_is_not_asked_again(chat_double, status):
    chat_double.says = lambda body, nth: (status, {}, b'{"error": "no such model"}')
    with pytest.raises(ServerFault, match=f"the server refuses: status {status} .*no such model"):
        await ask(server(chat_double.url))
    assert len(chat_double.bodies) == 1


async def test_one_that_hangs_is_given_up(chat_double):
    chat_double.says = lambda body, nth: "!hang" if nth == 0 else "yes"
    assert await ask(server(chat_double.url, try_deadline=0.2)) == "yes"
    chat_double.says = lambda body, nth: "!hang"
    began = time.monotonic()
    with pytest.raises(ServerFault, match=r"no answer within 0\.2 s") as raised:
        await ask(server(chat_double.url, try_deadline=0.2))
    assert raised.value.status is ScoreStatus.TIMEOUT
    with pytest.raises(ServerFault, match=r"no answer within") as raised:
        await ask(server(chat_double.url, deadline=0.3, retries=100))
    assert raised.value.status is ScoreStatus.TIMEOUT
    assert time.monotonic() - began < 10


async def test_nobody_listens():
    gone = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(ServerFault, match="ConnectError") as raised:
        await ask(server(gone))
    assert raised.value.status is ScoreStatus.RAISED


async def test_several_servers_stand_in_for_each_other(chat_double):
    gone = f"http://127.0.0.1:{free_port()}/v1"
    settings = server(gone, urls=(gone, chat_double.url), cache="none")
    async with settings.open(None) as chat:
        for _ in range(4):
            assert await chat.ask(ASKED) == "<score>7</score>"


async def test_retry_after_is_waited_for(chat_double):
    times = []

    def says(body, nth):
        times.append(time.monotonic())
        return (429, {"retry-after": "0.4"}, b"") if nth == 0 else "yes"

    chat_double.says = says
    assert await ask(server(chat_double.url)) == "yes"
    assert times[1] - times[0] >= 0.4


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_retry_after_beyond_the_deadline_is_not_waited_for(chat_double, form):
    later = "3600" if form == "seconds" else email.utils.formatdate(time.time() + 3600)
    chat_double.says = lambda body, nth: (429, {"retry-after": later}, b"")
    began = time.monotonic()
    with pytest.raises(ServerFault, match="status 429; then no time left of 180 s") as raised:
        await ask(server(chat_double.url))
    assert raised.value.status is ScoreStatus.TIMEOUT
    assert time.monotonic() - began < 5
    assert len(chat_double.bodies) == 1


@pytest.mark.parametrize("odd", ["soon", "nan", "-5", "Mon, 99 Foo 2020"])
async def test_an_odd_retry_after_is_no_reason_to_stop(chat_double, odd):
    chat_double.says = lambda body, nth: (429, {"retry-after": odd}, b"") if nth == 0 else "yes"
    assert await ask(server(chat_double.url)) == "yes"


async def test_no_more_at_once_than_allowed(chat_double):
    def says(body, nth):
        time.sleep(0.05)
        return "yes"

    chat_double.says = says
    async with server(chat_double.url, concurrency=3).open(None) as chat:
        questions = [[{"role": "user", "content": str(i)}] for i in range(12)]
        assert await asyncio.gather(*map(chat.ask, questions)) == ["yes"] * 12
    assert chat_double.most_at_once == 3


async def test_the_same_question_is_asked_once(chat_double):
    async with server(chat_double.url).open(None) as chat:
        await asyncio.gather(*(chat.ask(ASKED) for _ in range(5)))
        assert len(chat_double.bodies) == 1
        await chat.ask(ASKED, sample=1)
        await chat.ask([*ASKED, *ASKED])
        assert len(chat_double.bodies) == 3
    async with server(chat_double.url, cache="none").open(None) as chat:
        await asyncio.gather(*(chat.ask(ASKED) for _ in range(2)))
    assert len(chat_double.bodies) == 5


async def test_a_caller_that_gives_up_leaves_the_others_alone(chat_double):
    chat_double.says = lambda body, nth: time.sleep(0.1) or "yes"
    async with server(chat_double.url).open(None) as chat:
        first, second = (asyncio.create_task(chat.ask(ASKED)) for _ in range(2))
        await asyncio.sleep(0.03)
        first.cancel()
        assert await second == "yes"


async def test_faults_are_not_remembered(chat_double, tmp_path):
    chat_double.says = lambda body, nth: (500, {}, b"") if nth == 0 else "yes"
    settings = server(chat_double.url, retries=0, cache=str(tmp_path / "answers.db"))
    with pytest.raises(ServerFault):
        await ask(settings)
    assert await ask(settings) == "yes"


async def test_a_file_outlives_the_run_and_knows_the_model(chat_double, tmp_path):
    settings = server(chat_double.url, cache=str(tmp_path / "deep" / "answers.db"))
    chat_double.says = lambda body, nth: "¿sí? \ud800 \x00 end"
    first = await ask(settings)
    assert await ask(settings) == first.replace("\ud800", "?")
    assert len(chat_double.bodies) == 1
    for changed in ({"model": "other"}, {"max_tokens": 9}, {"temperature": 1}, {"extra": {"a": 1}}):
        await ask(settings.model_copy(update=changed))
    assert len(chat_double.bodies) == 5
    moved = settings.model_copy(update={"urls": ("http://127.0.0.1:9/v1",)})
    assert await ask(moved) == first.replace("\ud800", "?")


async def test_a_file_that_is_no_cache(tmp_path):
    (tmp_path / "notes.txt").write_text("hello " * 500)
    for name in ("notes.txt", ""):
        with pytest.raises(ConfigError, match=r"server\.cache: "):
            await ask(server("http://127.0.0.1:9/v1", cache=str(tmp_path / name)))


async def test_an_answer_without_text_is_empty(chat_double):
    message = {"choices": [{"message": {"content": None, "reasoning_content": "hm"}}]}
    chat_double.says = lambda body, nth: (200, {}, json.dumps(message).encode())
    assert await ask(server(chat_double.url)) == ""


def test_settings_that_make_no_sense():
    url = "http://x/v1"
    for fields, message in (
        ({"urls": ()}, "give one of: urls"),
        ({"start": {"model": "x"}}, "give one of: urls"),
        ({"model": ""}, "model: missing"),
        ({"urls": ("localhost:8000",)}, "'localhost:8000' is no URL; write it as http"),
        ({"extra": {"seed": 1}}, r"extra\.seed: this key is made by Cohort"),
    ):
        with pytest.raises(ValueError, match=message):
            server(url, **fields)


async def test_what_is_missing_is_told_at_the_start(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(MissingService, match="the environment has no NO_SUCH_KEY"):
        await ask(server("http://x/v1", key_env="NO_SUCH_KEY"))
    with pytest.raises(MissingService, match=r"server\.start needs a run"):
        await ask(ChatServer(start={"model": "x"}))
