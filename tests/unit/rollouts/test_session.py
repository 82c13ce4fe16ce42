"""A conversation and its forks: tokens as sampled, seeds that depend on the place alone."""

from __future__ import annotations

import asyncio

import pytest

from trainer.engines.base import Completion, Engine, Sampling
from trainer.models.tiny_text import TinyText
from trainer.rollouts.base import Session, seed_of
from trainer.types import Prompt, Status


class Seeds(Engine):
    """Answers with digits of the seed, the later requests first."""

    async def sample(self, request):
        await asyncio.sleep(0.01 / (1 + len(request.order)))
        tokens = [6 + int(digit) for digit in str(request.seed)[:6]]
        n = len(tokens)
        return Completion(tokens, [-1.0] * n, [3] * n, "length")


@pytest.fixture
def session() -> Session:
    prompt = Prompt("p", ({"role": "user", "content": "1+1="},), serial=5)
    renderer = TinyText().renderer()
    return Session.start(prompt, Seeds(), renderer, Sampling(max_tokens=6), seed=9, member=2)


async def test_a_turn_is_recorded_as_it_was_sampled(session):
    span = await session.sample()
    assert span.message == str(seed_of(9, 5, 2, 1))[:6]
    assert session.tokens == [*session.rollout.spans[0].tokens, *span.tokens]
    assert session.rollout.completion == span.tokens
    assert (span.version, span.sampled) == ([3] * 6, [True] * 6)
    assert session.rollout.status is Status.TRUNCATED


class Aborts(Engine):
    """Gives up after `written` tokens."""

    written: int

    async def sample(self, request):
        n = self.written
        return Completion([6] * n, [-1.0] * n, [3] * n, "abort")


@pytest.mark.parametrize(("written", "status"), [(2, Status.TRUNCATED), (0, Status.ABORTED)])
async def test_a_reply_that_the_engine_gave_up_is_truncated(session, written, status):
    """Its tokens are the policy's; one without any is no rollout."""
    session.engine = Aborts(written=written)
    span = await session.sample()
    assert len(span.tokens) == written
    assert session.rollout.status is status


async def test_forks_sample_differently_from_one_place(session):
    """At the same time, too: the seed is not a matter of who comes first."""
    first, second = session.fork(), session.fork()
    deep = second.fork()
    together = await asyncio.gather(*(s.sample() for s in (session, first, second, deep)))
    assert len({span.message for span in together}) == 4
    assert {span.parent for span in together} == {0}
    assert len(session.rollout.leaves()) == 4


async def test_the_order_of_forks_at_work_does_not_matter(session):
    async def play(backwards: bool) -> dict[tuple[int, ...], str]:
        root = Session.start(
            session.prompt, Seeds(), session.renderer, session.sampling, seed=9, member=2
        )
        branches = [root.fork(), root.fork()]
        for branch in reversed(branches) if backwards else branches:
            await branch.sample()
            branch.append("tool", "tool", "7")
            await branch.sample()
        return {b.line: "".join(map(str, b.tokens)) for b in branches}

    assert await play(False) == await play(True)
