"""Answers are scored while others of their group are still being written."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from pydantic import TypeAdapter

from trainer.ahead import scoring_ahead
from trainer.engines.base import Sampling
from trainer.engines.scripted import Scripted
from trainer.errors import EngineError, MissingService
from trainer.models.tiny_text import TinyText
from trainer.rewards.base import Reward
from trainer.rollouts.greedy_baseline import GreedyBaseline
from trainer.rollouts.single_turn import SingleTurn
from trainer.types import Group, Prompt, ScoreStatus, Status

EXACT = {"type": "text/exact", "extract": "all"}
SERVER = {"urls": ["http://judge"], "model": "m"}
ONE, ALL = ({"type": f"judge/{kind}", "server": SERVER} for kind in ("pointwise", "pairwise"))
make = TypeAdapter(Reward).validate_python


def weighted(**rewards):
    return {"type": "weighted", "terms": {name: {"reward": r} for name, r in rewards.items()}}


@asynccontextmanager
async def finishing(scorer, group, order=(), step=lambda: 1, **settings):
    """The members of the group finish in this order, each in a moment of its own."""
    async with scoring_ahead(scorer, group.prompt, step, **settings) as ahead:
        for member, rollout in enumerate(group.rollouts):
            rollout.member = member
        for member in order:
            ahead.finished(group.rollouts[member])
            await asyncio.sleep(0.01)
        yield ahead


@pytest.mark.parametrize("agent", [SingleTurn(), GreedyBaseline()])
@pytest.mark.parametrize("inside", ["nothing", "a sum", "what needs the group"])
async def test_the_last_answer_may_wait_for_the_score_of_the_first(
    hostile, open_scorer, make_context, monkeypatch, tmp_path, agent, inside
):
    """It would wait for ever if scoring began with the whole group."""
    file, reward = tmp_path / "scored", hostile.Hostile()
    if inside == "a sum":
        reward = weighted(touch=reward, exact=EXACT)
    elif inside != "nothing":
        levels = {"touch": {"reward": reward}, "exact": {"reward": EXACT}}
        reward = weighted(order={"type": "lexicographic", "levels": levels})
    sample = Scripted.sample

    async def patient(self, request):
        if request.order[1] == 2:
            async with asyncio.timeout(20):
                while not file.exists():
                    await asyncio.sleep(0.01)
        return await sample(self, request)

    monkeypatch.setattr(Scripted, "sample", patient)
    prompt = Prompt("p", ({"role": "user", "content": "1+1="},), "2", meta={"file": str(file)})
    model = TinyText()
    renderer, engine = model.renderer(), Scripted(answers=("touch",))
    async with (
        open_scorer(reward) as scorer,
        engine.open(make_context(model, renderer)),
        scoring_ahead(scorer, prompt, lambda: 1) as ahead,
    ):
        arguments = prompt, engine, renderer, Sampling(max_tokens=8)
        group = await agent.play(*arguments, group_size=3, seed=0, finished=ahead.finished)
        scores = await ahead.score(group)
    assert [score.status for score in scores] == [ScoreStatus.OK] * 3
    assert [rollout.score for rollout in group.rollouts] == scores
    assert [rollout.member for rollout in group.rollouts] == [0, 1, 2]


@pytest.mark.parametrize("order", [(), (0, 1, 2, 3), (3, 1), (2, 0, 3, 1)])
async def test_when_they_finish_changes_no_score(hostile, open_scorer, make_replies, order):
    """Not even what a reward draws at random."""
    replies = ["random", "raise", "random", "random"]
    gate = {"type": "gated", "gate": EXACT, "reward": hostile.Hostile(), "threshold": 0.0}
    reward = weighted(random=hostile.Hostile(), gate=gate)
    async with open_scorer(reward) as scorer:
        expected = await scorer.score_group(make_replies(replies, answer="2"), step=1)
        group = make_replies(replies, answer="2")
        async with finishing(scorer, group, order) as ahead:
            assert await ahead.score(group) == expected
    assert len({score.value for score in expected}) == 4


async def test_what_finishes_together_is_one_request(hostile, open_scorer, make_replies):
    """As with an engine that writes a whole batch: no message more than for the whole group."""
    works = []
    async with open_scorer(hostile.Hostile()) as scorer:
        run = scorer.pool.run
        scorer.pool.run = lambda work, limit: works.append(len(work.seeds)) or run(work, limit)
        group = make_replies(["fine"] * 5)
        async with finishing(scorer, group, [4]) as ahead:
            for rollout in group.rollouts[:3]:
                ahead.finished(rollout)
            await asyncio.sleep(0.01)
            ahead.finished(group.rollouts[3])
            await ahead.score(group)
    assert works == [1, 3, 1]


async def test_the_whole_group_is_of_one_step(hostile, open_scorer, make_replies):
    steps = iter([4, 5, 6])
    reward = weighted(alone=hostile.Steps(), together=hostile.Steps(together=True))
    async with open_scorer(reward) as scorer:
        group = make_replies(["a", "b", "c"])
        async with finishing(scorer, group, [1, 0], lambda: next(steps)) as ahead:
            scores = await ahead.score(group)
    assert [score.parts for score in scores] == [{"alone": 4.0, "together": 4.0}] * 3


async def test_faults_count_once_and_those_never_played_are_not_scored(
    hostile, open_scorer, make_replies
):
    async with open_scorer(hostile.Hostile()) as scorer:
        group = make_replies(["raise", "fine", "fine", "quit"])
        group.rollouts[1].status = Status.ABORTED
        async with finishing(scorer, group, [1, 0, 3]) as ahead:
            scores = await ahead.score(group)
        assert [fault.status for fault in scorer._window if fault] == [
            ScoreStatus.RAISED,
            ScoreStatus.CRASHED,
        ]
    assert [score.value for score in scores] == [None, None, 1.0, None]
    assert scores[1].status is ScoreStatus.NOT_APPLICABLE


async def test_what_is_missing_ends_the_run(hostile, open_scorer, make_replies):
    async with open_scorer("none") as scorer:
        group = make_replies(["a", "b"])
        reward = hostile.NeedsPackage()
        async with finishing(scorer, group, [0], reward=reward) as ahead:
            with pytest.raises(MissingService, match="pip install sand"):
                await ahead.score(group)


async def test_nothing_goes_on_when_the_rest_is_never_written(hostile, open_scorer, make_replies):
    async with open_scorer(hostile.Hostile(), deadline=60.0) as scorer:
        begun = time.monotonic()
        with pytest.raises(EngineError, match="no server"):
            async with finishing(scorer, make_replies(["sleep", "a"]), [0]):
                raise EngineError("no server")
        assert time.monotonic() - begun < 30
        assert scorer.pool.idle.qsize() == 1
        (score,) = await scorer.score_group(make_replies(["fine"]), step=1)
    assert score.value == 1.0


async def test_metrics_are_kept_once_and_not_those_of_an_evaluation(
    hostile, open_scorer, make_replies
):
    async with open_scorer(hostile.Logs()) as scorer:
        for log in (True, False):
            group = make_replies(["a", "b"])
            async with finishing(scorer, group, [0, 1], log=log) as ahead:
                await ahead.score(group)
        assert scorer.drain_metrics() == {"seen": [2.0]}


EARLY = [
    (EXACT, ["exact"]),
    (ONE, ["pointwise"]),
    (ALL, []),
    ({"type": "function", "function": "builtins:len"}, []),
    (weighted(a=EXACT, b=ONE), ["weighted"]),
    (weighted(a=EXACT, b=ALL), ["exact"]),
    ({"type": "route", "tasks": {"sum": ONE, "other": EXACT}}, ["route"]),
    ({"type": "route", "tasks": {"sum": ALL, "other": EXACT}}, []),
    ({"type": "route", "tasks": {"other": EXACT}}, []),
    ({"type": "route", "tasks": {"other": ALL}, "default": weighted(a=EXACT, b=ALL)}, ["exact"]),
    ({"type": "gated", "gate": EXACT, "reward": ONE}, ["gated"]),
    ({"type": "gated", "gate": EXACT, "reward": weighted(a=ONE, b=ALL)}, ["exact"]),
    ({"type": "staged", "phases": {"a": {"reward": EXACT}, "b": {"reward": ONE}}}, ["staged"]),
    ({"type": "staged", "phases": {"a": {"reward": EXACT}, "b": {"reward": ALL}}}, []),
    ({"type": "trust", "outcome": EXACT, "thinking": ONE}, ["exact", "pointwise"]),
    ({"type": "trust", "outcome": EXACT, "thinking": ONE, "settled": [0.1, 0.9]}, ["exact"]),
    ({"type": "process/steps", "reward": ONE, "outcome": EXACT}, ["exact"]),
    ({"type": "process/steps", "reward": ONE}, []),
    ({"type": "self_description", "accuracy": EXACT, "format": ONE}, ["exact", "pointwise"]),
    ({"type": "self_description", "accuracy": EXACT, "format": ONE, "tight": True}, []),
    ({"type": "audited", "reward": ONE, "audit": EXACT}, ["audited"]),
    ({"type": "lexicographic", "levels": {"a": {"reward": EXACT}}}, ["exact"]),
    ({"type": "shaped", "reward": EXACT, "scale": 2}, ["shaped"]),
]


@pytest.mark.parametrize(("spec", "names"), EARLY)
def test_what_may_be_scored_alone(spec, names):
    """Nothing that may never be asked, and nothing that compares answers."""
    prompt = Prompt("p", (), task="sum")
    assert [type(reward).__name__.lower() for reward in make(spec).alone(prompt)] == names


async def test_each_score_is_given_once_and_for_its_own_prompt(hostile, open_scorer, make_replies):
    """A reward that asks the same of a child again, or of another prompt, is answered anew."""
    async with open_scorer(hostile.Hostile()) as scorer:
        group = make_replies(["fine"] * 3)
        async with finishing(scorer, group, [2]) as ahead:
            assert not await ahead.take(scorer.reward, Group(Prompt("q", ()), group.rollouts))
            assert set(await ahead.take(scorer.reward, group)) == {2}
            assert not await ahead.take(scorer.reward, group)
