"""How near an answer's meaning is to the reference's."""

from __future__ import annotations

from trainer.ops.parsing import Unparsable, answer_field, unwrapped
from trainer.rewards.base import Reward, RewardContext
from trainer.types import Group, Score, ScoreStatus


class Similarity(Reward):
    """value = max(0, cos(e(answer), e(reference))) in [0, 1], e the encoder of `scoring.encoder`;
    of several references the nearest (Sentence-BERT, arXiv:1908.10084).

    The answer is what the last `<tag>` of the reply holds, or all of it without the tag. A reply
    that cannot be read is worth 0 (`unparsable`), an empty one too. A row without an answer does
    not apply. An encoder tells topics apart better than right from wrong: mix it with a rule.
    """

    needs = frozenset({"answer", "encoder"})

    tag: str = "answer"
    require_tag: bool = False
    signed: bool = False
    """The cosine as it is, in [-1, 1] (ReFine-RFT)."""

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        gold = group.prompt.answer
        golds = gold if isinstance(gold, list | tuple) else [] if gold is None else [gold]
        if not golds:
            why = "the row has no answer"
            return [Score(status=ScoreStatus.NOT_APPLICABLE, reason=why) for _ in group.rollouts]
        references = [unwrapped(str(text), self.tag) for text in golds]
        read = [self._read(rollout.reply) for rollout in group.rollouts]
        texts = [text for text in read if isinstance(text, str)]
        vectors = await ctx.embed([*references, *texts])
        right, given = vectors[: len(references)], iter(vectors[len(references) :])
        return [
            text if isinstance(text, Score) else self._nearest(next(given), right) for text in read
        ]

    def _read(self, reply: str) -> str | Score:
        try:
            text = answer_field(reply, self.tag, require_tag=self.require_tag).text
            if not text:
                raise Unparsable("the reply is empty")
        except Unparsable as error:
            return Score(0.0, status=ScoreStatus.UNPARSABLE, reason=str(error))
        return text

    def _nearest(self, vector: list[float], others: list[list[float]]) -> Score:
        cosines = [sum(a * b for a, b in zip(vector, other, strict=True)) for other in others]
        return Score(min(1.0, max(-1.0 if self.signed else 0.0, *cosines)))
