"""A verifier that learns beside the policy from the answers a precise rule accepts (Cooper)."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic import Field

from trainer.learned import LearnedReward
from trainer.losses.base import Loss
from trainer.plugin import load_object
from trainer.rewards.base import Reward, RewardContext, named_parts
from trainer.types import Group, Prompt, Rollout, Score

if TYPE_CHECKING:
    from trainer.context import Context
    from trainer.types import Batch

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class Cooper(LearnedReward):
    """value = sigma(s), s the model's value of (question, reference answer, answer).

    Each step it learns from one pair per prompt: the first answer that `rule` gives exactly 1, and
    the same answer made wrong. -log sigma(s+ - s-), the mean over pairs. A prompt has no pair where
    no answer is right, where nothing can be made wrong, or (`check`) where the rule accepts the
    result; without any pair nothing is learned. After Cooper (survey entry 27), with its loss and
    pairs; `corrupt` stands for its assistant model. Parts: `logit`, `rule`. Logs `pairs`.
    """

    rule: Reward
    """High precision: what it accepts must be right."""
    corrupt: str = "answer"
    """`answer`: the last number becomes another one. Or `my_pkg.mod:fn`, a plain or async function
    `fn(question, answer, response) -> str | None`, which may ask a language model for a wrong
    ending; None: no pair."""
    check: bool = True
    """Let the rule confirm that the corrupted answer is wrong (the paper's code does not)."""
    layout: str = "{question}\nReference answer: {answer}\nIs this right?\n"
    """User turn before the answer; the answer is the assistant's."""
    loss: Loss = Field("bradley_terry", validate_default=True)

    @property
    def needs(self) -> frozenset[str]:
        return self.rule.needs | {"answer"}

    @property
    def learns_by(self) -> Loss:
        return self.loss

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        async with self.rule.open(context), super().open(context):
            yield

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        rules = await ctx.score(self.rule, group)
        logits = await self.values([self._row(group.prompt, r.reply) for r in group.rollouts])
        right = [i for i, rule in enumerate(rules) if rule.value == 1.0]
        if right:
            await self._pair(group, group.rollouts[right[0]], ctx)
        return [
            Score((1 + math.tanh(s / 2)) / 2, parts={"logit": s} | named_parts("rule", rule))
            for s, rule in zip(logits, rules, strict=True)
        ]

    async def learn(
        self, groups: Sequence[Group], batch: Batch, step: int
    ) -> tuple[Batch, dict[str, float]]:
        rows, labels, places = [], [], []
        for place, group in enumerate(groups):
            for rollout in group.rollouts:
                if "corrupted" in rollout.meta:
                    texts = (rollout.reply, rollout.meta["corrupted"])
                    rows += [self._row(group.prompt, text) for text in texts]
                    labels += [1.0, 0.0]
                    places += [place, place]
        report = await self.fit(rows, labels, places, step)
        return batch, report | {"pairs": len(rows) / 2}

    async def _pair(self, group: Group, rollout: Rollout, ctx: RewardContext) -> None:
        """Leaves the corrupted text in the rollout's `meta`, if there is one."""
        prompt = group.prompt
        if self.corrupt == "answer":
            wrong: Any = _other_number(rollout.reply, ctx.rng.choice((-2, -1, 1, 2)))
        else:
            wrong = load_object(self.corrupt)(_question(prompt), prompt.answer, rollout.reply)
            wrong = await wrong if inspect.isawaitable(wrong) else wrong
        if not wrong or wrong == rollout.reply:
            return
        if self.check:
            (verdict,) = await ctx.score(self.rule, Group(prompt, [_with_reply(rollout, wrong)]))
            if verdict.value == 1.0:
                return
        rollout.meta["corrupted"] = wrong

    def _row(self, prompt: Prompt, reply: str) -> list[int]:
        text = self.layout.format(question=_question(prompt), answer=prompt.answer)
        asked = self.renderer.render([{"role": "user", "content": text}], name=prompt.id)
        return [*asked.tokens, *self.renderer.encode(reply), self.renderer.stop_ids[0]]


def _question(prompt: Prompt) -> str:
    """Text of the last user turn."""
    turns = [m["content"] for m in prompt.messages if m["role"] == "user"]
    content = turns[-1] if turns else ""
    return content if isinstance(content, str) else "".join(p.get("text", "") for p in content)


def _other_number(text: str, change: int) -> str | None:
    """`text` with its last number moved by `change`, away from 0 where it would fall below."""
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    number = found[-1].group()
    moved = float(number) + (change if float(number) + change >= 0 else -change)
    shown = f"{moved:.{len(number.partition('.')[2])}f}"
    return text[: found[-1].start()] + shown + text[found[-1].end() :]


def _with_reply(rollout: Rollout, text: str) -> Rollout:
    from dataclasses import replace

    spans = list(rollout.spans)
    last = max(i for i, span in enumerate(spans) if span.author == "policy")
    spans[last] = replace(spans[last], message=text, tokens=[], sampled=[], logprobs=[], version=[])
    return replace(rollout, spans=spans, meta={})
