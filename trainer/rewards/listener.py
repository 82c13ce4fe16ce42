"""A second model reads the reasoning without the answer: is the right choice likely to it?"""

from __future__ import annotations

import math
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from trainer.errors import DataError, MissingService
from trainer.ops.parsing import LONGEST, Unparsable, answer_field, unwrapped
from trainer.rewards.base import Pattern, Reward, RewardContext
from trainer.types import Group, Prompt, Score, ScoreStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trainer.context import Context

Row = tuple[list[int], dict[str, Any]]
QUESTION = (
    "\nSomebody thought about it: {reasoning}\nWhich one is it? Answer with the choice alone."
)
VERDICT = r"[^.!?\n]*\b(?:answer|choice|choose|better|prefer\w*|winner)\b[^.!?\n]*[.!?]?"


class Listener(Reward):
    """value = p(gold | prompt, reasoning), the listener's softmax over the log-probs of `choices`.

    The reasoning is what the reply's last `<think>` holds, without its `verdict` sentences: an
    answer that is told needs no convincing. A reply without reasoning, or with one that the
    tokenizer cannot write, is worth 0 and `unparsable`. A row whose answer is none of the choices
    (a tie) does not apply. It is the gold choice that counts, not the reply's own. Source: after
    Listener-Rewarded Thinking (arXiv:2506.22832), whose listener is another frozen model and whose
    sum is format + 0.5 accuracy + 0.5 listener; the wording and the softmax are ours.
    """

    choices: tuple[str, ...] = Field(("1", "2"), min_length=2)
    model: Literal["reference", "policy"] = "reference"
    """Who listens: the recipe's `reference`, or the policy itself, which makes it a reward for
    consistency."""
    tag: str = "think"
    question: str = QUESTION
    """Added to the last message of the prompt, with `{reasoning}` here or in `lead`."""
    lead: str = ""
    """What the listener's reply begins with before the choice, `<think>{reasoning}</think><answer>`
    for one that answers so itself."""
    verdict: Pattern | None = VERDICT
    """What is cut out of the reasoning; None: nothing."""

    _renderer: Any = PrivateAttr(None)

    @field_validator("question", "lead")
    @classmethod
    def _can_be_filled(cls, value: str) -> str:
        try:
            value.format(reasoning="")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"not a text with {{reasoning}} in it: {error!r}") from None
        return value

    @model_validator(mode="after")
    def _hears_the_reasoning(self) -> Listener:
        if "\0" not in (self.question + self.lead).format(reasoning="\0"):
            raise ValueError("question or lead must have {reasoning} in it: it is what is judged")
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"answer", "engine" if self.model == "policy" else "reference"})

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        self._renderer = context.renderer
        yield

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        if self._renderer is None:
            raise MissingService("listener needs a model: it works in `cohort train` and `eval`")
        gold = group.prompt.answer
        gold = unwrapped(gold) if isinstance(gold, str) else str(gold)
        if gold not in self.choices:
            reason = f"the answer {gold[:40]!r} is none of {', '.join(self.choices)}"
            return [Score(status=ScoreStatus.NOT_APPLICABLE, reason=reason) for _ in group.rollouts]
        asked = [self._asked(group.prompt, rollout.reply) for rollout in group.rollouts]
        rows = [row for one in asked if not isinstance(one, Score) for row in one]
        columns = iter(await ctx.logprobs(rows, self.model) if rows else [])
        ends = [len(self._renderer.encode(choice)) for choice in self.choices]
        scores = []
        for one in asked:
            if isinstance(one, Score):
                scores.append(one)
                continue
            heard = [sum(next(columns)[-end:]) for end in ends]
            own = heard[self.choices.index(gold)]
            scores.append(Score(1 / sum(math.exp(min(other - own, 700.0)) for other in heard)))
        return scores

    def reasoning(self, reply: str) -> str:
        """What the listener is told. Raises Unparsable."""
        text = answer_field(reply[-LONGEST:], self.tag, require_tag=True).text
        told = re.sub(self.verdict, "", text).strip() if self.verdict else text
        if not told:
            raise Unparsable(f"<{self.tag}> says nothing but the answer")
        return told

    def _asked(self, prompt: Prompt, reply: str) -> list[Row] | Score:
        """One row per choice, or the score of a reply that the listener is not asked about."""
        try:
            told = self.reasoning(reply)
            more, lead = self.question.format(reasoning=told), self.lead.format(reasoning=told)
            *before, last = prompt.messages
            content = last["content"]
            if isinstance(content, str):
                content += more
            else:
                content = [*content, {"type": "text", "text": more}]
            shown = self._renderer.render((*before, {**last, "content": content}), name=prompt.id)
            heard = [*shown.tokens, *self._renderer.encode(lead)]
        except (Unparsable, DataError) as error:
            return Score(0.0, status=ScoreStatus.UNPARSABLE, reason=str(error))
        return [([*heard, *self._renderer.encode(choice)], shown.inputs) for choice in self.choices]
