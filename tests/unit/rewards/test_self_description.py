"""Vision-SR1 with a second pass that reads its prompt."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from trainer.errors import DataError, MissingService
from trainer.rewards.base import Reward
from trainer.rewards.self_description import SelfDescription
from trainer.types import Score, ScoreStatus


class Boxed(Reward):
    """1 if the reply boxes the answer; "broken" in it is a fault."""

    async def score(self, group, ctx):
        gold = f"\\boxed{{{group.prompt.answer}}}"
        return [
            Score(status=ScoreStatus.TIMEOUT)
            if "broken" in r.reply
            else Score(float(gold in r.reply))
            for r in group.rollouts
        ]


class Tagged(Reward):
    async def score(self, group, ctx):
        return [Score(float("</description><think>" in r.reply)) for r in group.rollouts]


class Second:
    """Answers 3 if it is shown three things."""

    def __init__(self):
        self.asked = []

    async def score(self, reward, group):
        return await reward.score(group, self)

    async def continue_(self, tokens, inputs, **sampling):
        assert inputs == {}
        assert sampling == {"max_tokens": 2048, "temperature": 1.0}
        (text,) = tokens
        self.asked.append(text)
        return "\\boxed{3}" if "cat, dog, bus" in text else "\\boxed{9}"


def render(messages, name):
    if "unheard-of" in messages[0]["content"]:
        raise DataError("no token")
    return SimpleNamespace(tokens=[messages[0]["content"]])


async def graded(replies, make_replies, **fields):
    reward = SelfDescription(accuracy=Boxed(), format=Tagged(), **fields)
    messages = ({"role": "user", "content": "<image>How many?"},)
    second = Second()
    async with reward.open(SimpleNamespace(renderer=SimpleNamespace(render=render))):
        group = make_replies(replies, answer="3", messages=messages)
        return await reward.score(group, second), second.asked


GOOD = "<description>cat, dog, bus</description><think>t</think>"


async def test_the_cards_numbers(make_replies):
    replies = [
        GOOD + "\\boxed{3}",
        "<description>things</description><think>t</think>\\boxed{3}",
        GOOD + "\\boxed{4}",
        "no tag",
    ]
    scores, asked = await graded(replies, make_replies)
    assert [s.value for s in scores] == pytest.approx([2, 1, 1.1, 0])
    assert [s.parts["self"] for s in scores] == [1, 0, 1, 0]
    assert len(asked) == 3
    assert asked[0].startswith("Text description: cat, dog, bus\nQuestion: How many?\n")


async def test_what_gives_the_answer_away_is_not_asked(make_replies):
    leaks = [
        "<description>cat, dog, bus: 3!</description>\\boxed{3}",
        "<description>cat, dog, bus \\boxed{3} </description>\\boxed{3}",
        "<description>cat, dog, bus, 30 trees</description>\\boxed{3}",
    ]
    scores, asked = await graded(leaks, make_replies)
    assert [s.parts["self"] for s in scores] == [0, 1, 1]
    assert all("boxed{3}" not in text for text in asked)
    _, unguarded = await graded(leaks, make_replies, guard=False)
    assert len(unguarded) == 3


async def test_without_the_tag_as_in_the_code(make_replies):
    scores, _ = await graded(["cat, dog, bus \\boxed{3}"], make_replies, require_tag=False)
    assert scores[0].value == pytest.approx(1.9)


async def test_blanks_around_tags(make_replies):
    """The card's step before grading: it makes tags whole, and touches what the second pass reads
    no more than what it answers."""
    loose = "<description>cat, dog, bus</ description > <think>1 / 2</think>\\boxed{3}"
    for reply, tight, parts in [
        (loose, False, {"accuracy": 1, "format": 0, "self": 0}),
        (loose, True, {"accuracy": 1, "format": 1, "self": 0}),
        (GOOD.replace("><", "> <") + "\\boxed{3}", True, {"accuracy": 1, "format": 1, "self": 1}),
    ]:
        ((only,), _) = await graded([reply], make_replies, tight=tight)
        assert only.parts == parts
    (_, asked) = await graded(["<description>a / b</description>"], make_replies, tight=True)
    assert "a / b" in asked[0]


async def test_a_description_without_tokens_is_not_asked(make_replies):
    odd = "<description>cat, dog, bus, unheard-of</description><think>t</think>\\boxed{3}"
    scores, asked = await graded([GOOD + "\\boxed{3}", odd], make_replies)
    assert [s.value for s in scores] == pytest.approx([2, 1])
    assert len(asked) == 1


async def test_faults(make_replies):
    scores, _ = await graded([GOOD + "broken"], make_replies)
    assert (scores[0].value, scores[0].status) == (None, ScoreStatus.TIMEOUT)
    reward = SelfDescription(accuracy=Boxed(), format=Tagged())
    with pytest.raises(MissingService, match="needs a model"):
        await reward.score(make_replies(["x"], answer="3"), Second())
