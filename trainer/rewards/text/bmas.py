"""Long answers by the embeddings of their tokens (Mixed-R1's open-ended reward)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr

from trainer.errors import MissingService
from trainer.ops.parsing import Unparsable, answer_field, unwrapped
from trainer.rewards.base import Reward, RewardContext
from trainer.types import Group, Rollout, Score, ScoreStatus

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.context import Context


class Bmas(Reward):
    """Bidirectional max-average similarity. With E the policy's input embeddings, a frozen copy of
    the start weights, p_i and g_j the tokens of answer and reference, S_ij = cos(E[p_i], E[g_j]):
    F = mean_i max_j S_ij, B = mean_j max_i S_ij; value (F + B) / 2, not under `floor`.

    The tokens are the policy tokenizer's, without special ones. An empty answer: 0; none:
    0, `unparsable`. Several references: the best. Parts: `forward` F, `backward` B. Order and
    negation do not matter to it, and repeating one right token is cheap: add a length limit. After
    Mixed-R1 (arXiv:2505.24164); the abstract names the method, every choice below is ours.
    """

    needs = frozenset({"answer"})

    average: Literal["mean", "harmonic"] = "mean"
    centre: bool = False
    """Subtract the mean embedding of the vocabulary first: raw embeddings of a language model point
    one way, and unrelated tokens look alike."""
    stop_tokens: tuple[str, ...] = ()
    """Texts of tokens that do not count, in any case and without white space: `[the, of]`."""
    floor: float = Field(0.0, ge=-1, le=1)
    longest: int = Field(2048, gt=0)
    """Tokens of an answer that are looked at."""
    tag: str = "answer"
    require_tag: bool = True

    _table: Any = PrivateAttr(None)
    _tokenizer: Any = PrivateAttr(None)
    _stops: frozenset[int] = PrivateAttr(frozenset())

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        self._tokenizer = context.renderer.tokenizer
        self._table = await asyncio.to_thread(self._load, context)
        self._stops = self._stop_ids()
        try:
            yield
        finally:
            self._table = None

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        if self._table is None:
            raise MissingService(
                "text/bmas needs the policy's embeddings: it works in `cohort train` and "
                "`cohort eval`"
            )
        gold = group.prompt.answer
        if gold is None:
            reason = "the row has no answer"
            return [Score(status=ScoreStatus.NOT_APPLICABLE, reason=reason) for _ in group.rollouts]
        texts = gold if isinstance(gold, list | tuple) else [gold]
        return await asyncio.to_thread(self._grade, group.rollouts, [str(text) for text in texts])

    def _grade(self, rollouts: list[Rollout], texts: list[str]) -> list[Score]:
        right = [self.embedded(unwrapped(text, self.tag)) for text in texts]
        return [self._one(rollout.reply, right) for rollout in rollouts]

    def _one(self, reply: str, right: list[Tensor]) -> Score:
        from trainer.ops.bmas import bmas, match_both_ways

        try:
            field = answer_field(reply, self.tag, require_tag=self.require_tag, empty=True)
        except Unparsable as error:
            return Score(0.0, status=ScoreStatus.UNPARSABLE, reason=str(error))
        given = self.embedded(field.text)
        best = max(right, key=lambda reference: bmas(given, reference, self.average))
        forward, backward = match_both_ways(given, best)
        value = max(self.floor, bmas(given, best, self.average))
        return Score(value, parts={"forward": forward, "backward": backward})

    def embedded(self, text: str) -> Tensor:
        """f[n, d] of the text's tokens that count."""
        ids = self._tokenizer(text[: 20 * self.longest], add_special_tokens=False).input_ids
        kept = [i for i in ids if i not in self._stops][: self.longest]
        return self._table[kept]

    def _load(self, context: Context) -> Tensor:
        from trainer.ops.bmas import table_of

        model = context.model.load(dtype="float32", attn_implementation="eager")
        table = table_of(model)
        return table - table.mean(0) if self.centre else table

    def _stop_ids(self) -> frozenset[int]:
        unwanted = {text.strip().lower() for text in self.stop_tokens}
        special = set(self._tokenizer.all_special_ids)
        if not unwanted:
            return frozenset(special)
        shown = {i: self._tokenizer.decode([i]) for i in range(len(self._tokenizer))}
        return frozenset(special | {i for i, t in shown.items() if t.strip().lower() in unwanted})
