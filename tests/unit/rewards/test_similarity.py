"""text/similarity with given vectors, and through the border without an encoder."""

from __future__ import annotations

import pytest

from trainer.errors import MissingService
from trainer.types import ScoreStatus

VECTORS = {"up": [0.0, 1.0], "right": [1.0, 0.0], "between": [0.6, 0.8], "down": [0.0, -1.0]}


class Served:
    def __init__(self):
        self.calls = 0

    async def embed(self, texts):
        self.calls += 1
        return [VECTORS[text] for text in texts]


async def test_values(make_reward, make_replies):
    replies = ["up", "so <answer>between</answer>", "down", "", "right"]
    served = Served()
    scores = await make_reward("text/similarity").score(make_replies(replies, answer="up"), served)
    assert [s.value for s in scores] == pytest.approx([1.0, 0.8, 0.0, 0.0, 0.0])
    assert scores[3].status is ScoreStatus.UNPARSABLE
    assert served.calls == 1


async def test_signed(make_reward, make_replies):
    reward = make_reward({"type": "text/similarity", "signed": True})
    scores = await reward.score(make_replies(["up", "between", "down"], answer="up"), Served())
    assert [s.value for s in scores] == pytest.approx([1.0, 0.8, -1.0])


async def test_several_references_and_none(make_reward, make_replies):
    reward = make_reward({"type": "text/similarity", "require_tag": True})
    group = make_replies(["<answer>between</answer>", "up"], answer=["down", "right", "up"])
    scores = await reward.score(group, Served())
    assert [s.value for s in scores] == pytest.approx([0.8, 0.0])
    assert scores[1].status is ScoreStatus.UNPARSABLE
    for nothing in (None, []):
        (lone,) = await reward.score(make_replies(["up"], answer=nothing), Served())
        assert lone.status is ScoreStatus.NOT_APPLICABLE


async def test_it_needs_an_encoder(score, make_replies):
    with pytest.raises(MissingService, match=r"set scoring\.encoder"):
        await score("text/similarity", make_replies(["up"], answer="up"))
