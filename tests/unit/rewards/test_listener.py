"""The listener's probability of the right choice, with given and with real log-probs."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainer.errors import MissingService
from trainer.models.pretrained import Pretrained
from trainer.rewards.listener import Listener
from trainer.types import ScoreStatus

RENDERER = Pretrained(
    path=str(Path(__file__).parents[3] / "configs" / "model" / "tiny_text")
).renderer()
ASK = ";{reasoning}?"


class Served:
    """Gives each row's last token the next of some logits, and every other token -9."""

    def __init__(self, *logits):
        self.logits, self.rows, self.model = iter(logits), [], ""

    async def logprobs(self, rows, model="policy"):
        self.model = model
        self.rows += [RENDERER.tokenizer.decode(tokens) for tokens, _ in rows]
        return [[-9.0] * (len(tokens) - 2) + [next(self.logits)] for tokens, _ in rows]

    async def score(self, reward, group):
        return await reward.score(group, self)


async def graded(make_replies, replies, *logits, answer="1", **fields):
    reward = Listener(**{"question": ASK, "verdict": None} | fields)
    served = Served(*logits)
    asked = ({"role": "user", "content": "1+1"},)
    async with reward.open(SimpleNamespace(renderer=RENDERER)):
        scores = await reward.score(make_replies(replies, answer=answer, messages=asked), served)
    return scores, served


REPLY = "<think>so</think><answer>1</answer>"


@pytest.mark.parametrize(
    ("logits", "heard", "accurate", "whole"),
    [((2.1, 0.4), 0.845535, 1, 1.922767), ((-1.0, 1.0), 0.119203, 1, 1.559601)],
)
async def test_the_cards_numbers(make_replies, logits, heard, accurate, whole):
    ((only,), served) = await graded(make_replies, [REPLY], *logits)
    assert only.value == pytest.approx(heard, abs=1e-6)
    assert 1 + 0.5 * accurate + 0.5 * only.value == pytest.approx(whole, abs=1e-6)
    assert served.rows == ["1+1;so?1", "1+1;so?2"]  # no answer, the same words for each choice
    assert served.model == "reference"


async def test_a_listener_that_goes_on_from_the_thought(make_replies):
    lead = "<think>{reasoning}</think><answer>"
    ((only,), served) = await graded(make_replies, [REPLY], 2.1, 0.4, question=";", lead=lead)
    assert served.rows == ["1+1;<think>so</think><answer>" + choice for choice in "12"]
    assert only.value == pytest.approx(0.845535, abs=1e-6)


async def test_the_gold_choice_counts_and_not_the_replys_own(make_replies):
    ((only,), _) = await graded(make_replies, [REPLY], 2.1, 0.4, answer="2")
    assert only.value == pytest.approx(1 - 0.845535, abs=1e-6)
    ((far,), _) = await graded(make_replies, [REPLY], -2000.0, 0.0, model="policy")
    assert far.value == pytest.approx(0.0)


async def test_choices_of_several_tokens(make_replies):
    ((only,), served) = await graded(
        make_replies, [REPLY], -1.0, -2.0, choices=("12", "3"), answer="12"
    )
    assert served.rows == ["1+1;so?12", "1+1;so?3"]
    assert only.value == pytest.approx(1 / (1 + math.exp(-2.0 + 9.0 + 1.0)))


async def test_what_is_not_asked(make_replies):
    scores, served = await graded(
        make_replies, ["1", "<think> </think>1"], answer="<answer>2</answer>"
    )
    assert served.rows == []
    assert [(s.value, s.status) for s in scores] == [(0.0, ScoreStatus.UNPARSABLE)] * 2
    assert "no <think>" in scores[0].reason
    ((tie,), served) = await graded(make_replies, [REPLY], answer="tie")
    assert (tie.value, tie.status) == (None, ScoreStatus.NOT_APPLICABLE)
    ((odd,), _) = await graded(make_replies, ["<think>\u6c34</think>1"])
    assert (odd.value, odd.status) == (0.0, ScoreStatus.UNPARSABLE)


@pytest.mark.parametrize(
    ("reasoning", "told"),
    [
        ("The left is sharp. So the answer is 1.", "The left is sharp."),
        ("I prefer image 1. It is bright!", "It is bright!"),
        ("The better one is 2", None),
        ("Its colours are true.", "Its colours are true."),
    ],
)
def test_verdicts_are_cut_out(reasoning, told):
    listener = Listener()
    reply = f"<think>{reasoning}</think><answer>1</answer>"
    if told is None:
        with pytest.raises(Exception, match="says nothing but the answer"):
            listener.reasoning(reply)
    else:
        assert listener.reasoning(reply) == told


async def test_it_needs_a_model_and_a_reference(make_replies):
    with pytest.raises(MissingService, match="needs a model"):
        await Listener().score(make_replies([REPLY], answer="1"), Served())
    assert "reference" in Listener().needs
    assert "engine" in Listener(model="policy").needs


@pytest.mark.parametrize("question", ["Which one?", "{thought}?", "{reasoning"])
def test_a_question_without_the_reasoning_is_refused(question):
    with pytest.raises(ValueError, match="reasoning"):
        Listener(question=question)
    with pytest.raises(ValueError, match="reasoning"):
        Listener(question="", lead=question)
