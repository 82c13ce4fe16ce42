"""What may be an answer of a server, and what is nonsense."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trainer.ops.member import MemberFault
from trainer.ops.vllm_replies import Reply, completion, largest_gap, prompt_scores


def answer(tokens: Any = (5, 6, 2), logprobs: Any = (-0.5, -1.0, 0.0), **fields: Any) -> Any:
    content = [{"logprob": score} for score in logprobs]
    choice = {"token_ids": list(tokens), "logprobs": {"content": content}, "finish_reason": "stop"}
    return {"choices": [choice | fields]}


def read(said: Any, *, may_change: bool = True) -> Reply:
    return completion(said, vocabulary=10, banned={9}, most=4, started=3, may_change=may_change)


def test_a_reply():
    assert read(answer()) == Reply([5, 6, 2], [-0.5, -1.0, 0.0], [3, 3, 3], "stop")
    assert read(answer(finish_reason="length")).finish == "length"
    assert read(answer(finish_reason="abort")).finish == "abort"
    assert read(answer((), (), finish_reason="abort")).tokens == []


def test_each_token_has_the_version_that_drew_it():
    spans = [{"version": "3", "start": 0, "end": 1}, {"version": "4", "start": 1, "end": 9}]
    assert read(answer(weight_versions=spans)).version == [3, 4, 4]
    # an adapter does not change inside a reply, whatever the base is called
    assert read(answer(weight_versions=spans), may_change=False).version == [3, 3, 3]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"choices": []},
        "text",
        answer((5, 6), (-0.5,)),  # a token without a log-prob
        answer((5,) * 5, (-0.5,) * 5),  # more than were asked for
        answer((5, 10, 2)),  # not in the vocabulary
        answer((5, -1, 2)),
        answer((5, 9, 2)),  # an image placeholder
        answer((5, "6", 2)),
        answer((), ()),  # nothing, and not aborted
        answer(logprobs=(-0.5, math.nan, 0.0)),
        answer(logprobs=(-0.5, -9999.0, 0.0)),  # could not have been drawn
        answer(logprobs=(-0.5, 0.7, 0.0)),  # a probability above 1
        answer(logprobs=(-0.5, None, 0.0)),
        answer(finish_reason="tool_calls"),
        answer(finish_reason=None),
        answer(token_ids=None),
        answer(logprobs=()),
    ],
)
def test_nonsense(said):
    with pytest.raises(MemberFault):
        read(said)


def test_scores_of_a_prompt():
    listed = [None, {"6": {"logprob": -0.5}}, {"9": {"logprob": -9999.0}}]
    assert prompt_scores({"prompt_logprobs": listed}, [5, 6, 9]) == [-0.5, -math.inf]
    for said in ({}, {"prompt_logprobs": None}, {"prompt_logprobs": listed[:2]}, []):
        with pytest.raises(MemberFault, match="no prompt log-probs"):
            prompt_scores(said, [5, 6, 9])


def test_gaps():
    none = [[-1.0, -math.inf]]
    assert largest_gap(none, none) == 0.0  # two that are both banned do not differ
    assert largest_gap(none, [[-1.25, -math.inf]]) == 0.25
    assert largest_gap(none, [[-1.0, -2.0]]) == math.inf
