"""Numbers of tokens, traced back from the rows of a batch to the spans of rollouts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from trainer.collate import collate
from trainer.monitors.base import Tracing
from trainer.ops.traces import unpack, unpack_ends
from trainer.tracing import Tracer
from trainer.types import Group, Prompt, Rollout, Score, Span

WORDS = {1: "a", 2: "bc", 3: "", 4: "né"}


def decode(tokens):
    return "".join(WORDS[token] for token in tokens)


def span(parent, tokens, sampled, author="policy"):
    n = len(tokens)
    logprobs = [-0.5 * (i + 1) * sampled for i in range(n)]
    return Span(parent, "r", author, decode(tokens), tokens, [sampled] * n, logprobs, [0] * n)


def chain(tokens, value):
    return Rollout([span(None, [1], False, "data"), span(0, tokens, True)], score=Score(value))


def tracer(groups=8, every=1, share=1):
    return Tracer(Tracing(every, groups, 64), SimpleNamespace(decode=decode), share)


def advantages(batch):
    """Each position its own number: row, then position."""
    rows, width = batch.tokens.shape
    numbers = torch.arange(rows)[:, None] + torch.arange(width) / 100
    return batch.with_(advantages=numbers * batch.mask)


def test_a_chain_has_its_own_row():
    group = Group(Prompt("p", (), answer=1, serial=5), [chain([2, 4, 3], 1.0), chain([1, 2], 0.0)])
    (row,) = tracer().trace(1, [group], [], advantages(collate([group])))
    first, second = (rollout["spans"][0] for rollout in row["rollouts"])
    assert row["group"] == 5
    assert first["span"] == 1
    assert unpack_ends(first["ends"]) == [2, 4, 4]
    assert unpack(first["logprob"], 3) == pytest.approx([-0.5, -1.0, -1.5], abs=1e-4)
    assert unpack(first["advantage"], 3) == pytest.approx([0.01, 0.02, 0.03], abs=1e-4)
    assert unpack(second["advantage"], 2) == pytest.approx([1.01, 1.02], abs=1e-4)
    assert "gold" not in row


def test_unscored_rollouts_have_no_row_and_do_not_shift_the_others():
    group = Group(Prompt("p", ()), [chain([2], None), chain([1], 1.0)])
    (row,) = tracer().trace(1, [group], [], advantages(collate([group])))
    assert "advantage" not in row["rollouts"][0]["spans"][0]
    assert row["rollouts"][1]["spans"][0]["advantage"] == pytest.approx(0.01)
    nothing = Group(Prompt("p", ()), [chain([2], None)])
    (row,) = tracer().trace(1, [nothing], [], advantages(collate([nothing])))
    assert "advantage" not in row["rollouts"][0]["spans"][0]


def test_a_span_that_rows_share_has_their_mean():
    spans = [
        span(None, [1], False, "data"),
        span(0, [2], True),
        span(1, [1], True),
        span(1, [4, 4], True),
    ]
    group = Group(Prompt("p", ()), [Rollout(spans, score=Score(1.0))])
    (row,) = tracer().trace(1, [group], [], advantages(collate([group])))
    found = {one["span"]: one["advantage"] for one in row["rollouts"][0]["spans"]}
    assert found[1] == pytest.approx((0.01 + 1.01) / 2, abs=1e-4)
    assert found[2] == pytest.approx(0.02, abs=1e-4)
    assert unpack(found[3], 2) == pytest.approx([1.02, 1.03], abs=1e-4)


def test_columns_are_those_that_the_batch_has():
    group = Group(Prompt("p", ()), [chain([2, 1], 1.0)])
    batch = advantages(collate([group]))
    one = tracer().trace(1, [group], [], batch)[0]["rollouts"][0]["spans"][0]
    assert sorted(one) == ["advantage", "ends", "logprob", "span"]
    batch = batch.with_(ref_logprobs=batch.sampled_logprobs - 1, values=batch.rewards)
    # old log-probs that are the sampled ones need no second column
    batch = batch.with_(old_logprobs=batch.sampled_logprobs)
    one = tracer().trace(1, [group], [], batch)[0]["rollouts"][0]["spans"][0]
    assert sorted(one) == ["advantage", "ends", "logprob", "ref_logprob", "span", "value"]
    assert unpack(one["ref_logprob"], 2) == pytest.approx([-1.5, -2.0], abs=1e-3)


def test_the_limit_is_shared_and_dropped_groups_come_last():
    groups = [Group(Prompt("p", (), serial=s), [chain([1], 1.0)]) for s in range(4)]
    batch = advantages(collate(groups[:2]))
    rows = tracer(groups=3).trace(1, groups[:2], groups[2:], batch)
    assert [(row["group"], "dropped" in row) for row in rows] == [(0, False), (1, False), (2, True)]
    assert "advantage" not in rows[2]["rollouts"][0]["spans"][0]
    assert len(tracer(groups=3, share=2).trace(1, groups, [], collate(groups))) == 2
    assert tracer(every=2).trace(1, groups, [], batch) == []


def test_a_text_that_is_not_that_of_the_tokens_has_no_ends():
    rollout = chain([2, 1], 1.0)
    rollout.spans[1].message = "longer than the tokens"
    row = tracer().trace(1, [Group(Prompt("p", ()), [rollout])], [], None)[0]
    assert sorted(row["rollouts"][0]["spans"][0]) == ["logprob", "span"]


def test_pictures_and_columns_with_the_right_box():
    content = [{"type": "image", "image": Image.new("RGB", (8, 4))}, {"type": "text", "text": "?"}]
    prompt = Prompt(
        "p", ({"role": "user", "content": content},), meta={"box": [1, 2, 3, 4], "space": "unit"}
    )
    row = tracer().trace(1, [Group(prompt, [chain([1], 1.0)])], [], None)[0]
    assert [(p["width"], p["height"]) for p in row["pictures"]] == [(8, 4)]
    assert row["gold"] == [1, 2, 3, 4]
    assert row["spaces"] == {"space": "unit"}
