"""Rewards of steps; the numbers are those of the methods' worked examples."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from pydantic import ValidationError

from trainer.collate import collate
from trainer.config import Scoring
from trainer.engines.base import Engine
from trainer.models.base import Model
from trainer.plugin import find
from trainer.rewards.base import Reward
from trainer.rewards.process.aggregate import Aggregate
from trainer.rewards.process.clip_delta import ClipDelta
from trainer.rewards.process.monte_carlo import MonteCarlo
from trainer.rewards.process.pav import Pav
from trainer.rewards.process.steps import Steps
from trainer.rewards.process.thoughts import Thoughts
from trainer.scoring import Scorer
from trainer.types import Group, Prompt, Rollout, Score, ScoreStatus, Span, Status


class Table(Reward):
    """The score of a reply by what it ends with; NaN is a fault, None does not apply."""

    values: dict[str, float | None]

    async def score(self, group, ctx):
        return [Score(self._value(r.reply)) for r in group.rollouts]

    def _value(self, reply: str) -> float | None:
        return next((v for k, v in self.values.items() if reply.strip().endswith(k)), 0.0)


class Given(Reward):
    """Step scores by reply, one per token, and a value; `seen` keeps what was asked."""

    steps: dict[str, tuple[float, ...]]
    values: dict[str, float] = {}
    start: float | None = None

    async def score(self, group, ctx):
        return [
            Score(
                self.values.get(r.reply, 0.0),
                tokens={1: [*self.steps[r.reply], 0.0]},
                steps={1: list(range(len(self.steps[r.reply])))},
                parts={"start": self.start},
            )
            for r in group.rollouts
        ]


@pytest.fixture(scope="module")
def renderer():
    return find(Model, "tiny_text")().renderer()


@pytest.fixture
def answers(renderer):
    """A group of replies as a model with one token per character samples them."""

    def make(*replies: str) -> Group:
        question = renderer.encode("q")
        rollouts = []
        for reply in replies:
            ids = [*renderer.encode(reply), renderer.stop_ids[0]]
            n = len(ids)
            prompt = Span(None, "user", "data", "q", question, [False], [0.0], [-1])
            answer = Span(0, "assistant", "policy", reply, ids, [True] * n, [0.0] * n, [0] * n)
            rollouts.append(Rollout([prompt, answer]))
        return Group(Prompt("p", ({"role": "user", "content": "q"},), serial=1), rollouts)

    return make


@pytest.fixture
def run(make_context, renderer):
    """Scores a group through the border, with the reward open as in a run."""

    async def run(reward: Reward, group: Group, engine: Engine | None = None) -> list[Score]:
        model = find(Model, "tiny_text")()
        context = make_context(model, renderer)
        async with AsyncExitStack() as stack:
            if engine is not None:
                await stack.enter_async_context(engine.open(context))
            await stack.enter_async_context(reward.open(context))
            scorer = await stack.enter_async_context(
                Scorer.open(
                    reward,
                    Scoring(workers=1, fault_budget=1),
                    seed=0,
                    total_steps=1,
                    engine=engine,
                    renderer=renderer,
                )
            )
            return await scorer.score_group(group, 0)

    return run


def ends(score: Score) -> dict[int, float]:
    """Step scores of the reply, by place."""
    return {at: score.tokens[1][at] for at in score.steps.get(1, ())}


# -- process/steps --------------------------------------------------------------------------


async def test_a_step_is_paid_on_its_last_token(run, answers) -> None:
    lines = {"splitter": {"by": "line"}}
    reward = Steps(
        reward=Table(values={"a": 0.5, "bc": 0.25}), outcome=Table(values={"d": 1.0}), **lines
    )
    group = answers("a\nbc\nd", "x")
    first, second = await run(reward, group)
    assert (first.value, ends(first)) == (1.0, {1: 0.5, 4: 0.25, 6: 0.0})
    assert (second.value, ends(second)) == (0.0, {1: 0.0})
    assert first.parts == {"outcome": 1.0, "step_mean": 0.25, "step_count": 3.0}
    batch = collate([group])
    assert batch.extra["step_end"][0].nonzero().flatten().tolist() == [2, 5, 7]
    assert batch.rewards[0].tolist() == [0, 0, 0.5, 0, 0, 0.25, 0, 1.0]


async def test_what_the_judge_of_a_step_sees(run, answers) -> None:
    seen = []

    class Spy(Reward):
        async def score(self, group, ctx):
            seen.extend((r.reply, r.spans[-1].tokens) for r in group.rollouts)
            return [Score(1.0) for _ in group.rollouts]

    group = answers("a\nb")
    ids = group.rollouts[0].spans[1].tokens
    await run(Steps(reward=Spy(), splitter={"by": "line"}), group)
    await run(Steps(reward=Spy(), splitter={"by": "line"}, show="step"), group)
    assert seen == [("a\n", ids[:2]), ("a\nb", ids), ("a\n", []), ("b", [])]


async def test_without_an_outcome_the_steps_are_the_return(run, answers) -> None:
    reward = Steps(reward=Table(values={"a": 0.5, "b": 1.0}), splitter={"by": "line"}, coef=2.0)
    (score,) = await run(reward, answers("a\nb"))
    assert (score.value, score.total) == (0.0, 3.0)


async def test_a_step_that_does_not_apply_is_no_step_and_a_fault_is_a_fault(run, answers) -> None:
    table = Table(values={"a": None, "b": 0.5, "c": float("nan")})
    reward = Steps(reward=table, splitter={"by": "line"})
    fine, faulty = await run(reward, answers("a\nb", "b\nc"))
    assert ends(fine) == {3: 0.5}
    assert fine.parts["step_count"] == 1.0
    assert (faulty.value, faulty.status) == (None, ScoreStatus.NOT_FINITE)
    assert faulty.reason.startswith("step 1: ")


async def test_an_unscored_outcome_costs_no_step_scores(run, answers) -> None:
    class Never(Reward):
        async def score(self, group, ctx):
            assert not group.rollouts
            return []

    reward = Steps(reward=Never(), outcome=Table(values={"b": None}))
    (score,) = await run(reward, answers("b"))
    assert (score.value, score.status) == (None, ScoreStatus.NOT_APPLICABLE)


async def test_recorded_text_has_parts_only(run) -> None:
    answer = Span(0, "assistant", "policy", "a\nb", [], [], [], [])
    rollout = Rollout([Span(None, "user", "data", "q", [1], [False], [0.0], [-1]), answer])
    reward = Steps(reward=Table(values={"a": 1.0}), splitter={"by": "line"})
    (score,) = await run(reward, Group(Prompt("p", ()), [rollout]))
    assert (score.tokens, score.steps) == ({}, {})
    assert score.parts == {"step_mean": 0.5, "step_count": 2.0}


async def test_an_empty_reply_has_no_steps(run, answers) -> None:
    (score,) = await run(Steps(reward=Table(values={})), answers(""))
    assert (score.value, score.steps) == (0.0, {})
    assert score.parts == {"step_mean": None, "step_count": 0.0}


# -- process/clip_delta ---------------------------------------------------------------------

PRM = (0.9, 0.95, 0.3, 0.8)


@pytest.mark.parametrize(
    ("fields", "expected", "returns"),
    [
        ({"eta": 0.7, "delta": False}, [0, 0, -0.2, 0], [0.8, 0.8, 0.8, 1]),
        ({}, [-0.025, 0.325, 0.15, 0], [1.45, 1.475, 1.15, 1]),
        ({"eta": 0.7}, [0, 0.2, -0.2, 0], [1, 1, 0.8, 1]),
    ],
)
async def test_clip_and_delta_by_hand(run, answers, fields, expected, returns) -> None:
    reward = ClipDelta(reward=Given(steps={"abcd": PRM}, values={"abcd": 1.0}), alpha=0.5, **fields)
    group = answers("abcd")
    (score,) = await run(reward, group)
    assert score.value == 1.0
    assert list(ends(score).values()) == pytest.approx(expected)
    rewards = collate([group]).rewards[0, 1:].tolist()
    assert [sum(rewards[k:]) for k in range(4)] == pytest.approx(returns, abs=1e-6)


def test_repeating_a_good_step_earns_nothing() -> None:
    spec = Given(steps={})
    delta, clip = ClipDelta(reward=spec, alpha=0.5), ClipDelta(reward=spec, eta=0.7, delta=False)
    longer = [0.9, *[0.95] * 11, 0.3, 0.8]
    assert sum(delta.reshape(longer)) == pytest.approx(sum(delta.reshape(PRM)))
    assert sum(clip.reshape(longer)) == pytest.approx(sum(clip.reshape(PRM)))
    assert delta.reshape([0.9]) == [0.0]
    assert delta.reshape([]) == []


def test_clip_delta_that_does_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="delta: false needs eta"):
        ClipDelta(reward=Given(steps={}), delta=False)


# -- process/pav ----------------------------------------------------------------------------


async def test_progress_by_hand(run, answers) -> None:
    given = Given(steps={"abcd": (0.3, 0.5, 0.5, 0.2)}, start=0.4)
    reward = Pav(reward=given, alpha=2.0, final_is_outcome=False)
    group = answers("abcd")
    (score,) = await run(reward, group)
    found = list(ends(score).values())
    assert found == pytest.approx([-0.221, 0.3552, 0, -0.6942], abs=1e-4)
    assert found[2] == 0.0
    rewards = collate([group]).rewards[0, 1:].tolist()
    returns = [sum(rewards[k:]) for k in range(4)]
    assert returns == pytest.approx([-0.56, -0.339, -0.6942, -0.6942], abs=1e-4)


async def test_with_the_policy_as_prover_it_is_the_plain_difference(run, answers) -> None:
    given = Given(steps={"abcd": (0.3, 0.5, 0.5, 0.2)})
    plain = Pav(reward=given, start=0.4, best_of=1, final_is_outcome=False)
    (score,) = await run(plain, answers("abcd"))
    assert list(ends(score).values()) == pytest.approx([-0.1, 0.2, 0, -0.3])


async def test_the_last_chance_of_a_finished_answer_is_its_outcome(run, answers) -> None:
    given = Given(steps={"ab": (0.3, 0.5), "cd": (0.3, 0.5)}, values={"ab": 1.0}, start=0.0)
    group = answers("ab", "cd")
    group.rollouts[1].status = Status.TRUNCATED
    done, cut = await run(Pav(reward=given, best_of=1), group)
    assert list(ends(done).values()) == pytest.approx([0.3, 0.7])
    assert list(ends(cut).values()) == pytest.approx([0.3, 0.2])


async def test_what_pav_cannot_use_is_said(run, answers) -> None:
    (score,) = await run(Pav(reward=Given(steps={"a": (0.5,)})), answers("a"))
    assert score.status is ScoreStatus.RAISED
    assert "no part `start`, so set `start`" in score.reason
    (score,) = await run(Pav(reward=Given(steps={"ab": (1.5, 0)}, start=0)), answers("ab"))
    assert "chances in [0, 1]" in score.reason
    assert "gave 1.5" in score.reason


# -- process/monte_carlo --------------------------------------------------------------------


async def test_chances_are_the_mean_over_continuations(run, answers) -> None:
    engine = find(Engine, "scripted")(answers=("=4", "=5", "=4", "=4"))
    reward = MonteCarlo(reward=Table(values={"=4": 1.0}), splitter={"by": "line"}, samples=2)
    first, second = await run(reward, answers("a\nb=4", "=5"), engine)
    assert (first.value, second.value) == (1.0, 0.0)
    assert ends(first) == {1: 0.5, 5: 1.0}  # "=4" and "=5" after the first line
    assert ends(second) == {2: 0.0}
    assert first.parts == {"outcome": 1.0, "start": 0.5}
    assert "engine" in reward.needs


async def test_continuations_start_from_the_very_tokens(run, answers, monkeypatch) -> None:
    engine = find(Engine, "scripted")(answers=("=4",))
    asked, sample = [], type(engine).sample
    monkeypatch.setattr(
        type(engine), "sample", lambda self, request: asked.append(request) or sample(self, request)
    )
    group = answers("a\nb\nc")
    reward = MonteCarlo(
        reward=Table(values={}), splitter={"by": "line"}, samples=2, max_tokens=7, temperature=0.5
    )
    await run(reward, group, engine)
    ids = group.rollouts[0].spans[0].tokens + group.rollouts[0].spans[1].tokens
    assert sorted({len(r.tokens) for r in asked}) == [3, 5]
    assert all(r.tokens == ids[: len(r.tokens)] for r in asked)
    assert len({r.seed for r in asked}) == 4
    assert {(r.sampling.max_tokens, r.sampling.temperature) for r in asked} == {(7, 0.5)}


async def test_chances_that_nobody_could_judge(run, answers) -> None:
    engine = find(Engine, "scripted")(answers=("=?",))
    reward = MonteCarlo(
        reward=Table(values={"=?": None, "=4": 1.0}), splitter={"by": "line"}, samples=2
    )
    (score,) = await run(reward, answers("a\nb=4"), engine)
    assert ends(score) == {5: 1.0}
    (unjudged,) = await run(reward, answers("a\nb=?"), engine)
    assert (unjudged.value, unjudged.steps) == (None, {})


async def test_pav_on_monte_carlo(run, answers) -> None:
    engine = find(Engine, "scripted")(answers=("=4", "=5"))
    chances = MonteCarlo(reward=Table(values={"=4": 1.0}), splitter={"by": "line"}, samples=2)
    first, _ = await run(Pav(reward=chances, best_of=1), answers("a\nb=4", "=5"), engine)
    assert ends(first) == {1: 0.0, 5: 0.5}


# -- process/thoughts -----------------------------------------------------------------------

LABELS = (1, 1, 0, 0, 1, 0)


async def test_one_reward_per_thought(run, answers) -> None:
    given = Given(
        steps={"abcdef": LABELS, "g": (1,), "h": (0,), "i": (0,)}, values={"abcdef": 0.0, "g": 1.0}
    )
    scores = await run(Thoughts(reward=given, alpha=1.0), answers("abcdef", "g", "h", "i"))
    assert ends(scores[0]) == {1: 0.75, 3: -0.25, 4: 0.75, 5: -0.25}
    assert scores[0].parts["thoughts"] == 4
    assert scores[1].value == 1.0
    assert ends(scores[2]) == {0: -0.25}


def test_a_strong_policy_earns_nothing_for_right_thoughts() -> None:
    thoughts = Thoughts(reward=Given(steps={}), alpha=1.0)
    assert thoughts.rewards([1, 0], 1.0) == [0.0, -1.0]
    assert thoughts.rewards([1, 0], 0.0) == [1.0, 0.0]
    assert thoughts.rewards([], 0.5) == []
    longer = thoughts.rewards([1, 1, 1, 0], 0.5)
    assert [r for r in longer if r is not None] == thoughts.rewards([1, 0], 0.5)


def test_alternating_is_bounded() -> None:
    capped = Thoughts(reward=Given(steps={}), alpha=1.0, max_thoughts=2)
    assert capped.rewards([1, 0, 1, 0], 0.5) == [0.5, -0.5, None, None]


# -- process/aggregate ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "value"),
    [("min", 0.3), ("mean", 0.7375), ("product", 0.2052), ("sum", 2.95), ("last", 0.8)],
)
async def test_one_value_of_the_steps(run, answers, by, value) -> None:
    given = Given(steps={"abcd": PRM}, values={"abcd": 9.0})
    (score,) = await run(Aggregate(reward=given, by=by), answers("abcd"))
    assert score.value == pytest.approx(value)
    assert (score.tokens, score.parts["raw"]) == ({}, 9.0)
    (kept,) = await run(Aggregate(reward=given, by=by, keep_steps=True), answers("abcd"))
    assert list(ends(kept).values()) == pytest.approx(PRM)


async def test_an_answer_without_steps_has_no_value(run, answers) -> None:
    (score,) = await run(Aggregate(reward=Given(steps={"": ()})), answers(""))
    assert (score.value, score.status) == (None, ScoreStatus.NOT_APPLICABLE)


def test_they_are_found_by_name() -> None:
    spec = {
        "type": "process/clip_delta",
        "eta": 0.7,
        "reward": {"type": "process/steps", "reward": "none", "splitter": {"by": "line"}},
    }
    made = Reward.model_validate(spec)
    assert isinstance(made, ClipDelta)
    assert Reward.model_validate(made.model_dump()) == made
