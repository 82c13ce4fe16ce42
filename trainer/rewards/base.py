"""Contract of `reward:`: a group in, one `Score` per rollout out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator

from trainer.context import RewardContext
from trainer.learning import Beside
from trainer.ops.parsing import Unparsable, answer_field, unwrapped
from trainer.ops.spaces import Located
from trainer.plugin import Plugin
from trainer.types import Group, Prompt, Rollout, Score, ScoreStatus

if TYPE_CHECKING:
    from trainer.context import Context
    from trainer.types import Batch


Figure = Callable[[Sequence[int]], float | None]
"""A measure of those answers whose places it is given, some perhaps several times; None where
there is nothing to measure."""


class Reward(Plugin):
    family: ClassVar[str] = "trainer.rewards"
    needs: ClassVar[frozenset[str]] = frozenset()
    """What must be there: data columns (`answer`, `meta.box`, or one of several:
    `answer|meta.box`) and services (`engine`, `reference`, `images`, and the models of `scoring`:
    `encoder`, `image_encoder`, `lpips`). A property where it depends on the fields."""
    pointwise: ClassVar[bool] = False
    """True: an answer's score needs that answer and its prompt alone, so it is made while others
    of the group are still being written. Of a reward that combines others: if theirs do."""

    @classmethod
    def implied_type(cls, data: Mapping[str, Any]) -> str | None:
        """`reward: {function: my_pkg.mod:fn}` needs no `type`."""
        return "function" if "function" in data else None

    def ready(self) -> None:
        """Raises MissingService or ConfigError if this machine lacks what it runs on: a package,
        isolation. A look ahead, for `cohort check`; what is inside is asked by itself."""

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        """For rewards with something live; entered and left once by `Run`."""
        yield

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        """One score per rollout, in order."""
        raise NotImplementedError

    def alone(self, prompt: Prompt) -> list[Reward]:
        """What may score answers to this prompt one by one: this reward, or some inside it."""
        return [self] if self.pointwise else []

    def figures(self, answers: Sequence[tuple[Prompt, Rollout]]) -> dict[str, Figure]:
        """For evaluations: measures of many answers together that are no mean over them, such as
        mAP, by name. Only scored answers are given, without pixels."""
        return {}

    async def learn(
        self, groups: Sequence[Group], batch: Batch, step: int
    ) -> tuple[Batch, dict[str, float]]:
        """For co-trained rewards: once a step (counted from 1), with what the policy is about to
        be trained on and before its advantages. Returns the batch, with dense rewards in
        `rewards` or `extra` if the reward gives any, and numbers to log. All processes call it;
        the heavy part belongs into `asyncio.to_thread`."""
        return batch, {}

    def beside(self) -> tuple[Beside, ...]:
        """The models that this reward holds on the trainer's device, for the plan of the run."""
        return ()

    def state_dict(self) -> dict[str, Any]:
        """State that decides the next score; saved in checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undoes `state_dict`."""


Verdict = float | bool | None | Score
"""What grading code may return for one rollout: a number, None for "does not apply", or a whole
`Score`."""


@dataclass(slots=True)
class Call:
    """Facts for one `grade_group`, and what it has to say besides scores."""

    step: int = 0
    total_steps: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    """Numbers to log; averaged over the calls of a step."""
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """Extra columns for the rollout log, one value per rollout."""


class IsolatedReward(Reward):
    """Grades with plain synchronous Python in a worker process, never on the event loop: it may
    raise, hang or exit, and the run goes on. Workers do not import torch by themselves.

    Subclasses write `grade_group`, or derive from `PointwiseReward`. Those that are `pointwise`
    grade rollouts one by one, each with its own deadline; the others a group in one call, and its
    deadline is that of its rollouts together.
    """

    @property
    def own_seconds(self) -> float:
        """What grading one rollout may take besides `scoring.deadline`, by a limit of its own that
        it keeps: the time of the code that it runs."""
        return 0.0

    def warm(self) -> None:
        """Imports what grading needs. Called once per worker, before any deadline runs."""

    def grade_group(self, group: Group, call: Call) -> list[Verdict]:
        """One verdict per rollout, in order. What a group holds here: see `PointwiseReward`."""
        raise NotImplementedError

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        return await ctx.isolate(self, group)


class PointwiseReward(IsolatedReward):
    """Grades one rollout at a time. Subclasses write `grade` only."""

    pointwise: ClassVar[bool] = True

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        """A number, or None for "does not apply", or a whole `Score`.

        `rollout.reply` is the last answer's text, `prompt.answer` the gold one, `prompt.meta` the
        data row. Model inputs (pixel values) are left out. So are images, unless a need names
        `images`: what is left of one is `{"type": "image", "size": (width, height)}`.
        """
        raise NotImplementedError

    def grade_group(self, group: Group, call: Call) -> list[Verdict]:
        return [self.grade(rollout, group.prompt) for rollout in group.rollouts]


class AnswerReward(PointwiseReward):
    """Compares the answer of a reply with the row's. Subclasses write `compare` only.

    The answer is what the last complete, not empty `<tag>` holds, over as many lines as it may
    take, or the whole reply where there is no tag. A reply that cannot be read is worth `floor`
    with status `unparsable` and the reason. A row with nothing to compare with does not apply.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"answer"})
    gold_columns: ClassVar[tuple[str, ...]] = ()
    """Columns of the row that hold the right answer where `answer` is empty."""
    takes_empty: ClassVar[bool] = False
    """Whether an empty tag is an answer."""

    tag: str = "answer"
    require_tag: bool = False
    """Without the tag the reply is unparsable; else all of it is read."""
    strict: bool = False
    """The tag must be there exactly once, and hold the answer in exactly the form asked for."""

    @property
    def floor(self) -> float:
        """What a reply that cannot be read is worth."""
        return 0.0

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        """`gold`: the row's answer, taken out of `<tag>` where a text has one. Raises
        `Unparsable` for an answer that cannot be read, ValueError for a wrong row."""
        raise NotImplementedError

    def gold(self, prompt: Prompt) -> Any:
        """The right answer; None if the row has none."""
        named = (prompt.meta.get(name) for name in self.gold_columns)
        found = prompt.answer
        if found is None:
            found = next((value for value in named if value is not None), None)
        return unwrapped(found, self.tag) if isinstance(found, str) else found

    def answer(self, rollout: Rollout) -> str:
        """What is compared. Raises `Unparsable`."""
        return answer_field(
            rollout.reply,
            self.tag,
            require_tag=self.require_tag,
            strict=self.strict,
            empty=self.takes_empty,
        ).text

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        gold = self.gold(prompt)
        if gold is None:
            names = " nor ".join(("answer", *self.gold_columns))
            reason = f"the row has {'neither' if self.gold_columns else 'no'} {names}"
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason=reason)
        try:
            return self.compare(self.answer(rollout), gold, rollout, prompt)
        except Unparsable as error:
            return Score(self.floor, status=ScoreStatus.UNPARSABLE, reason=str(error))


class LocatedReward(AnswerReward, Located):
    """An answer with coordinates. Subclasses bring the row's side to the reply's space with
    `factors`, or both sides to another one, before they compare."""


class CompositeReward(Reward):
    """Combines other rewards. Opens them, lets them learn and saves their state."""

    def children(self) -> dict[str, Reward]:
        """The rewards inside, by the name their parts are logged under."""
        raise NotImplementedError

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(child.needs for child in self.children().values()))

    def alone(self, prompt: Prompt) -> list[Reward]:
        """Itself if all inside may. A subclass that does not show its children every answer of a
        group says which it does."""
        return self.or_inside(self.children().values(), prompt)

    def or_inside(self, children: Iterable[Reward], prompt: Prompt) -> list[Reward]:
        """Itself if it may be asked of one answer, and all of these too; else what is inside."""
        found = [(child, child.alone(prompt)) for child in children]
        if self.pointwise and all(inside == [child] for child, inside in found):
            return [self]
        return [deep for _, inside in found for deep in inside]

    async def scored(self, group: Group, ctx: RewardContext) -> list[dict[str, Score]]:
        """Every child's score of each rollout, by name; the children run side by side."""
        children = self.children()
        columns = await asyncio.gather(*(ctx.score(child, group) for child in children.values()))
        return [dict(zip(children, row, strict=True)) for row in zip(*columns, strict=True)]

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for child in self.children().values():
                await stack.enter_async_context(child.open(context))
            yield

    def figures(self, answers: Sequence[tuple[Prompt, Rollout]]) -> dict[str, Figure]:
        return {
            f"{name}/{key}": figure
            for name, child in self.children().items()
            for key, figure in child.figures(answers).items()
        }

    async def learn(
        self, groups: Sequence[Group], batch: Batch, step: int
    ) -> tuple[Batch, dict[str, float]]:
        report = {}
        for name, child in self.children().items():
            batch, learned = await child.learn(groups, batch, step)
            report |= {f"{name}/{key}": value for key, value in learned.items()}
        return batch, report

    def beside(self) -> tuple[Beside, ...]:
        return tuple(one for child in self.children().values() for one in child.beside())

    def state_dict(self) -> dict[str, Any]:
        states = {name: child.state_dict() for name, child in self.children().items()}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, child in self.children().items():
            if name in state:
                child.load_state_dict(state[name])


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A regular expression, checked when the recipe is read."""


def named_parts(name: str, score: Score) -> dict[str, float | None]:
    """A child's value and parts, as parts of its parent: `{"a": 1.0, "a/b": 0.5}`."""
    return {name: score.value} | {f"{name}/{part}": value for part, value in score.parts.items()}


def all_parts(scores: Mapping[str, Score]) -> dict[str, float | None]:
    """The values and parts of several children."""
    return {k: v for name, score in scores.items() for k, v in named_parts(name, score).items()}


def unscored(scores: Mapping[str, Score]) -> Score | None:
    """What a combination of `scores` comes to if one of them is a fault, or if none applies; None
    if there is something to combine."""
    parts = all_parts(scores)
    for name, score in scores.items():
        if score.status.is_fault:
            return Score(parts=parts, status=score.status, reason=f"{name}: {score.reason}")
    if all(score.value is None for score in scores.values()):
        reason = "; ".join(f"{name}: {score.reason}" for name, score in scores.items())
        return Score(parts=parts, status=ScoreStatus.NOT_APPLICABLE, reason=reason)
    return None


def combined(value: float, scores: Mapping[str, Score]) -> Score:
    """A value made of `scores`, which passes on their parts and that one could not be read."""
    score = Score(value, parts=all_parts(scores))
    for name, inner in scores.items():
        if inner.status is ScoreStatus.UNPARSABLE:
            score.status, score.reason = inner.status, f"{name}: {inner.reason}"
    return score


def flatten(reward: Reward) -> list[Reward]:
    """The reward and everything inside it."""
    inside = reward.children().values() if isinstance(reward, CompositeReward) else ()
    return [reward, *(deep for child in inside for deep in flatten(child))]
