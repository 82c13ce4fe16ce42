"""The border: statuses, the budget, counters, what a reward's context offers."""

from __future__ import annotations

import pytest

from trainer.engines.base import Completion, Engine
from trainer.errors import MissingService, RewardFaults
from trainer.types import Score, ScoreStatus, Status

NA = ScoreStatus.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("act", "status", "reason"),
    [
        ("raise", ScoreStatus.RAISED, "KeyError: 'answer'"),
        ("exit", ScoreStatus.RAISED, "SystemExit: 1"),
        ("timeout", ScoreStatus.RAISED, "TimeoutError: the judge is slow"),
        ("short", ScoreStatus.WRONG_LENGTH, "returned 1 scores for 2 rollouts"),
        ("none", ScoreStatus.RAISED, "returned NoneType, expected a list"),
        ("bad_span", ScoreStatus.WRONG_LENGTH, "scored span 5 of a rollout with 2 spans"),
        ("bad_tokens", ScoreStatus.WRONG_LENGTH, "1 token rewards for the 2 tokens of span 1"),
        ("status", ScoreStatus.RAISED, "said so"),
    ],
)
async def test_faults_on_the_event_loop(hostile, open_scorer, make_replies, act, status, reason):
    async with open_scorer(hostile.Other(act=act)) as scorer:
        scores = await scorer.score_group(make_replies(["ab", "cd"]), step=0)
    assert [s.status for s in scores] == [status] * 2
    assert [s.value for s in scores] == [None, None]
    assert scores[0].reason.startswith(reason)


async def test_deadline_on_the_event_loop(hostile, open_scorer, make_replies):
    async with open_scorer(hostile.Other(act="sleep"), deadline=0.05) as scorer:
        scores = await scorer.score_group(make_replies(["a", "b"]), step=0)
    assert [s.status for s in scores] == [ScoreStatus.TIMEOUT] * 2
    assert scores[0].reason.endswith("took more than 0.1 s for 2 rollouts")


async def test_the_clock_stands_still_while_others_work(hostile, open_scorer, make_replies):
    """Three children that use their own deadline up are no fault of the reward that waits."""
    async with open_scorer(hostile.Other(act="patient"), deadline=0.3) as scorer:
        (score,) = await scorer.score_group(make_replies(["sleep"]), step=0)
    assert (score.value, score.status) == (1.0, ScoreStatus.OK)


async def test_context(hostile, open_scorer, make_replies):
    async def one(act, **services):
        async with open_scorer(hostile.Other(act=act), **services) as scorer:
            return await scorer.score_group(make_replies(["a", "b"], serial=4), step=3)

    first, second = await one("rng"), await one("rng")
    assert first == second
    assert first[0].value != first[1].value
    assert (await one("steps"))[0].value == 12.0
    turns = (await one("turns"))[0]
    assert (turns.value, turns.spans, turns.status) == (0.0, {1: 0.5}, ScoreStatus.OK)


class Echo(Engine):
    """Log-probs are minus the token; continuations repeat the seed's last digits."""

    async def logprobs(self, rows):
        return [[-float(t) for t in tokens[1:]] for tokens, _ in rows]

    async def sample(self, request):
        n = request.sampling.max_tokens
        digits = [int(d) for d in str(request.seed)[-n:]]
        return Completion(digits, [0.0] * n, [0] * n, "length")


class Digits:
    def decode(self, tokens):
        return "".join(map(str, tokens))


async def test_engine_services(hostile, open_scorer, make_replies):
    async def one(act, engine=None, renderer=None):
        reward = hostile.Other(act=act)
        async with open_scorer(reward, engine=engine, renderer=renderer) as scorer:
            return await scorer.score_group(make_replies(["a", "b"], serial=4), step=3)

    assert (await one("logprobs", Echo()))[0].value == -5.0
    again = [await one("continue", Echo(), Digits()) for _ in range(2)]
    assert again[0] == again[1]
    assert again[0][0].value == 4.0
    assert again[0][0].parts != again[0][1].parts, "each continuation has a seed of its own"
    for act in ("logprobs", "continue"):
        with pytest.raises(MissingService, match="needs an engine"):
            await one(act)
    with pytest.raises(MissingService, match="renderer"):
        await one("continue", Echo())
    with pytest.raises(MissingService, match="needs a run with a reference"):
        await one("reference", Echo())
    with pytest.raises(MissingService, match="served are policy, reference"):
        await one("stranger", Echo())
    with pytest.raises(MissingService, match=r"set scoring\.encoder"):
        await one("embed", Echo())


async def test_waiting_stops_the_deadline(hostile, open_scorer, make_replies):
    """What a reward waits for inside `ctx.waiting()` does not count, what it does after it does."""
    for act, status in (("wait", ScoreStatus.OK), ("wait_then_sleep", ScoreStatus.TIMEOUT)):
        async with open_scorer(hostile.Other(act=act), deadline=0.2) as scorer:
            (score,) = await scorer.score_group(make_replies(["a"]), step=0)
        assert score.status is status, act


async def test_budget_stops_with_a_report(hostile, open_scorer, make_replies):
    config = {"fault_budget": 0.25, "fault_window": 64}
    async with open_scorer(hostile.Hostile(), **config) as scorer:
        await scorer.score_group(make_replies(["raise"] * 8 + ["fine"] * 20), step=0)
        await scorer.score_group(make_replies(["fine"] * 4), step=0)  # 8 of 32: within
        with pytest.raises(RewardFaults) as stopped:
            await scorer.score_group(make_replies(["nan"]), step=0)
    report = str(stopped.value)
    assert "failed to score 9 of the last 33 samples (27%, scoring.fault_budget is 25%)" in report
    assert "8 x raised: ValueError: bad answer  (for instance prompt p0, rollout 7)" in report
    assert "1 x not_finite: the score is nan" in report
    assert "hostile_rewards:Hostile" in report
    assert "scoring.deadline" in report


async def test_budget_looks_at_the_window_only(hostile, open_scorer, make_replies):
    config = {"fault_budget": 0.5, "fault_window": 4}
    async with open_scorer(hostile.Hostile(), **config) as scorer:
        await scorer.score_group(make_replies(["raise"] * 3), step=0)  # the window is not full
        await scorer.score_group(make_replies(["fine"] * 4), step=0)
        await scorer.score_group(make_replies(["raise"] * 2), step=0)
        with pytest.raises(RewardFaults, match="3 of the last 4"):
            await scorer.score_group(make_replies(["raise"]), step=0)


async def test_rollouts_that_failed_themselves_are_not_scored(hostile, open_scorer, make_replies):
    group = make_replies(["fine", "raise", "fine", "raise"])
    for rollout, status in zip(group.rollouts[1:], list(Status)[3:6], strict=True):
        rollout.status = status
    group.rollouts[2].status = Status.TRUNCATED
    async with open_scorer(hostile.Hostile()) as scorer:
        scores = await scorer.score_group(group, step=0)
    assert [s.value for s in scores] == [1.0, None, 1.0, None]
    assert scores[1] == Score(status=NA, reason="the rollout ended with env_error")
    assert [r.score for r in group.rollouts] == scores


async def test_metrics_and_columns_of_functions(open_scorer, make_replies, tmp_path, monkeypatch):
    code = """
def f(completions, log_extra, log_metric):
    print("to nobody")
    log_metric("length", len(completions))
    log_extra("first", [c[0]["content"][0] for c in completions])
    return [1.0] * len(completions)
"""
    (tmp_path / "logging_function.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    spec = {"function": "logging_function:f"}
    async with open_scorer(spec, log=tmp_path / "log") as scorer:
        group = make_replies(["ab", "cd"])
        await scorer.score_group(group, step=0)
        await scorer.score_group(make_replies(["ab"] * 4), step=0)
        assert sorted(scorer.drain_metrics()["length"]) == [2.0, 4.0]
        assert scorer.drain_metrics() == {}
    assert [r.meta["logged"] for r in group.rollouts] == [{"first": "a"}, {"first": "c"}]


async def test_no_worker_starts_where_none_is_needed(open_scorer, make_replies):
    async with open_scorer("none") as scorer:
        await scorer.score_group(make_replies(["a"]), step=0)
        assert [worker.process for worker in scorer.pool.workers] == [None]


async def test_an_empty_group(open_scorer, make_replies):
    async with open_scorer("none") as scorer:
        assert await scorer.score_group(make_replies([]), step=0) == []


async def test_cohort_errors_of_an_engine_are_not_faults(hostile, open_scorer, make_replies):
    class Broken(Echo):
        async def logprobs(self, rows):
            raise MissingService("the engine is gone")

    async with open_scorer(hostile.Other(act="logprobs"), engine=Broken()) as scorer:
        with pytest.raises(MissingService, match="the engine is gone"):
            await scorer.score_group(make_replies(["a"]), step=0)


async def test_evaluations_do_not_log_into_the_training_steps(hostile, open_scorer, make_replies):
    async with open_scorer(hostile.Logs()) as scorer:
        await scorer.score_group(make_replies(["a", "b"]), step=0)
        await scorer.score_group(make_replies(["a"]), step=0, log=False)
        assert scorer.drain_metrics() == {"seen": [2.0]}
