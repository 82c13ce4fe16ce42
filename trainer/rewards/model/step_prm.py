"""A process reward model: every step of an answer is scored by a trained head."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from trainer.errors import MissingService
from trainer.models.base import Model
from trainer.ops.steps import Decode, Splitter, Step, policy_spans
from trainer.policies.base import Policy
from trainer.rewards.base import Reward, RewardContext
from trainer.rollouts.base import path_inputs
from trainer.types import Group, Prompt, Rollout, Score, Status
from trainer.value_model import Asked

if TYPE_CHECKING:
    from trainer.context import Context


class StepPrm(Reward):
    """r_k = 2 s(v_k) - 1, v_k the model's value after the last token of step k and s the sigmoid:
    the probability that the step is right less that it is wrong, in [-1, 1].

    The scores are token rewards at the step ends (`Score.tokens`, `Score.steps`); the outcome is
    0. All answers of a prompt go through the model together, their common beginning once. With
    `form: min`, w_k r_k takes the place of r_k, w_k = exp(-r_k / T) / sum_j exp(-r_j / T) over the
    steps of the answer: the answer's sum is then near its worst step (PURE, arXiv:2504.15275; its
    baselines are in `advantage: min_form`, which weighs by itself: leave `form: sum` there). Mix
    in a verifiable outcome with `weighted`.

    Parts: `steps`, `min` and `mean` of r, `sum`. An answer without steps has `steps` 0, no token
    reward and value 0. `model` is what a stage with `loss: step_bce` exported, or a transformers
    checkpoint for token classification; it is frozen.
    """

    model: Model
    policy: Policy = Field("causal_lm", validate_default=True)
    """How to run it: dtype, packing. Its `head` is always the value head."""
    splitter: Splitter = Splitter()
    """Where steps end. It must cut as the training data of the model was cut."""
    unit: Literal["difference", "probability", "value"] = "difference"
    """2 s(v) - 1, s(v), or v itself."""
    form: Literal["sum", "min"] = "sum"
    temperature: float = Field(0.1, gt=0, allow_inf_nan=False)
    """T of `form: min`."""
    unfinished: Literal["score", "drop", "wrong"] = "score"
    """The last step of a truncated answer. `score`: as the model says. `drop`: no step, unless it
    ends as steps do. `wrong`: -1 (0 with `unit: probability`), for the answer has no end."""
    reads: Literal["rollout", "text"] = "rollout"
    """`rollout`: the model reads the very tokens of the rollout; it needs the policy's tokenizer
    and chat template. `text`: `question` and each step, followed by `separator`, in the tokens of
    its own, and is asked at the separators; what other authors wrote is left out."""
    separator: str = Field("\n", min_length=1)
    """Only for `reads: text`."""
    token_budget: int = Field(16384, gt=0)
    """Packed tokens per forward pass: memory only."""

    _live: Any = PrivateAttr(None)

    @model_validator(mode="after")
    def _wrong_is_bounded(self) -> StepPrm:
        if self.unfinished == "wrong" and self.unit == "value":
            raise ValueError("unfinished: wrong has no number with unit: value; take another unit")
        return self

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        from trainer.value_model import open_value_model, refuse_other_tokens

        async with open_value_model(self.policy, self.model, context, self.token_budget) as judge:
            if self.reads == "rollout":
                refuse_other_tokens(judge.renderer, context.renderer)
            self._live = (judge, context.renderer.decode)
            try:
                yield
            finally:
                self._live = None

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        if self._live is None:
            raise MissingService(
                f"{self.name()} judges with a model, which only a run or an evaluation opens"
            )
        judge, decode = self._live
        found = [_Answer(self, rollout, decode) for rollout in group.rollouts]
        if self.reads == "text":
            start = judge.renderer.encode(_question(group.prompt))
            asked = [answer.as_text(start, judge.renderer.encode) for answer in found]
        else:
            asked = [answer.as_tokens() for answer in found]
        values = iter(await judge.values([row for rows in asked for row in rows]))
        return [
            answer.score([self._rate(v) for _ in rows for v in next(values)])
            for answer, rows in zip(found, asked, strict=True)
        ]

    def weigh(self, rates: Sequence[float]) -> list[float]:
        """Token rewards of the steps of one answer, from their r."""
        if self.form == "sum" or not rates:
            return list(rates)
        lowest = min(rates)
        powers = [math.exp((lowest - rate) / self.temperature) for rate in rates]
        return [power / sum(powers) * rate for power, rate in zip(powers, rates, strict=True)]

    def _rate(self, value: float) -> float:
        if self.unit == "value":
            return value
        # tanh(v / 2) = 2 s(v) - 1, also where exp would overflow
        return math.tanh(value / 2) if self.unit == "difference" else (1 + math.tanh(value / 2)) / 2


class _Answer:
    """The steps of one rollout, and what the model is asked about them: one row per leaf, every
    step in the first row that holds it."""

    def __init__(self, reward: StepPrm, rollout: Rollout, decode: Decode):
        self.reward, self.rollout = reward, rollout
        self.steps: dict[int, list[Step]] = {}
        for span in policy_spans(rollout):
            self.steps[span] = reward.splitter.steps(rollout.spans[span].tokens, decode)
        cut = rollout.status is Status.TRUNCATED and reward.unfinished == "drop"
        if cut and self.steps and not _closed(reward.splitter, self.steps[max(self.steps)]):
            self.steps[max(self.steps)].pop()
        self.order = [
            (span, step.end)
            for path in self._paths()
            for span, new in path
            if new
            for step in self.steps.get(span, ())
        ]

    def as_tokens(self) -> list[Asked]:
        """The rollout's own tokens, asked at the last token of each step."""
        rows = []
        for path in self._paths():
            tokens: list[int] = []
            places: list[int] = []
            for span, new in path:
                ends = [step.end for step in self.steps.get(span, ())] if new else []
                places += [len(tokens) + end for end in ends]
                tokens += self.rollout.spans[span].tokens
            rows.append(Asked(tokens, places, path_inputs(self.rollout, path[-1][0])))
        return rows

    def as_text(self, start: list[int], encode: Callable[[str], list[int]]) -> list[Asked]:
        """Question, then each step and the separator, asked at the separators."""
        end = encode(self.reward.separator)
        rows = []
        for path in self._paths():
            tokens, places = list(start), []
            for span, new in path:
                for step in self.steps.get(span, ()):
                    tokens += encode(step.text.strip()) + end
                    places += [len(tokens) - 1] if new else []
            rows.append(Asked(tokens, places, {}))
        return rows

    def score(self, rates: Sequence[float]) -> Score:
        """From r of each step, in the order of `order`."""
        if self.rollout.status is Status.TRUNCATED and self.reward.unfinished == "wrong" and rates:
            rates = [*rates[:-1], -1.0 if self.reward.unit == "difference" else 0.0]
        tokens = {
            span: [0.0] * len(self.rollout.spans[span].tokens)
            for span, steps in self.steps.items()
            if steps
        }
        for (span, end), reward in zip(self.order, self.reward.weigh(rates), strict=True):
            tokens[span][end] = reward
        parts: dict[str, float | None] = {"steps": float(len(rates))}
        if rates:
            parts |= {"min": min(rates), "mean": sum(rates) / len(rates), "sum": sum(rates)}
        ends = {span: [s.end for s in steps] for span, steps in self.steps.items() if steps}
        return Score(value=0.0, tokens=tokens, steps=ends, parts=parts)

    def _paths(self) -> list[list[tuple[int, bool]]]:
        """Per leaf its spans, and whether no leaf before had them."""
        seen: set[int] = set()
        paths = []
        for leaf in self.rollout.leaves():
            path = self.rollout.path(leaf)
            paths.append([(span, span not in seen) for span in path])
            seen.update(path)
        return paths


def _closed(splitter: Splitter, steps: Sequence[Step]) -> bool:
    """Whether the last step ends as steps do, not where the answer was cut."""
    return not steps or len(splitter.split(steps[-1].text + "x")) > 1


def _question(prompt: Prompt) -> str:
    """The text of the last message, then a line break."""
    content = prompt.messages[-1]["content"] if prompt.messages else ""
    if not isinstance(content, str):
        content = "".join(part.get("text", "") for part in content)
    return f"{content}\n"
