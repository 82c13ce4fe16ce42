"""Steps in text and in tokens, also where a character spans tokens."""

from __future__ import annotations

from itertools import pairwise, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trainer.ops.steps import (
    Splitter,
    Step,
    cut_after,
    policy_spans,
    step_scores,
    token_ends,
    with_step_scores,
)
from trainer.types import Rollout, Score, Span

EOS = 0


def decode(tokens) -> str:
    """Byte b is token b + 1, as in a byte-level tokenizer; one trailing end token is left out."""
    tokens = tokens[:-1] if len(tokens) and tokens[-1] == EOS else tokens
    return bytes(t - 1 for t in tokens).decode("utf-8", errors="replace")


def encode(text: str) -> list[int]:
    return [b + 1 for b in text.encode()]


def pieces(words: list[str]):
    """A decoder of whole words."""
    return lambda tokens: "".join(words[t] for t in tokens)


def split(text: str, **fields) -> list[str]:
    return [text[a:b] for a, b in Splitter(**fields).split(text)]


def test_by_line_and_by_paragraph() -> None:
    text = "one\ntwo\n\nthree\n \n\nfour\n"
    assert split(text, by="line") == ["one\n", "two\n\n", "three\n \n\n", "four\n"]
    assert split(text) == ["one\ntwo\n\n", "three\n \n\n", "four\n"]


def test_by_regex_and_by_tag() -> None:
    assert split("a; b; c", by="regex", pattern="; ") == ["a; ", "b; ", "c"]
    tagged = "<step>a</step> <step>b</step>\n<answer>1</answer>"
    assert split(tagged, by="tag") == [
        "<step>a</step> ",
        "<step>b</step>\n",
        "<answer>1</answer>",
    ]


def test_white_space_is_no_step() -> None:
    assert split(" \n\n ") == []
    assert split("") == []
    assert split("\n\nfirst\n\nsecond") == ["\n\nfirst\n\n", "second"]
    assert split("x", by="regex", pattern="y*") == ["x"]


def test_the_last_of_max_steps_takes_the_rest() -> None:
    assert split("a\nb\nc\nd", by="line", max_steps=2) == ["a\n", "b\nc\nd"]
    assert split("a\nb", by="line", max_steps=5) == ["a\n", "b"]


TEXT = st.text(alphabet="ab \n.é€😀", max_size=40)


@given(TEXT, st.sampled_from(["line", "paragraph", "tag"]))
def test_steps_cover_the_text(text: str, by: str) -> None:
    spans = Splitter(by=by).split(text)
    assert bool(spans) == bool(text.strip())
    if spans:
        assert (spans[0][0], spans[-1][1]) == (0, len(text))
        assert all(a[1] == b[0] for a, b in pairwise(spans))
        assert all(text[a:b].strip() for a, b in spans)


@given(TEXT)
def test_a_character_belongs_to_the_token_that_finishes_it(text: str) -> None:
    ends = token_ends(encode(text), decode)
    expected = [n for n, c in enumerate(text) for _ in range(len(c.encode()) - 1)]
    whole, at = [], 0
    for n, c in enumerate(text):
        size = len(c.encode())
        whole += [n] * (size - 1) + [n + 1]
        at += size
    assert ends == whole
    assert len(expected) + len(text) == at


@given(TEXT, st.booleans())
def test_steps_partition_the_tokens(text: str, closed: bool) -> None:
    tokens = encode(text) + [EOS] * closed
    steps = Splitter(by="line").steps(tokens, decode)
    if not text.strip():
        assert steps == []
        return
    assert "".join(step.text for step in steps) == text
    assert (steps[0].start, steps[-1].end) == (0, len(tokens) - 1)
    assert all(a.end + 1 == b.start for a, b in pairwise(steps))
    for step in steps:
        assert decode(tokens[step.start : step.end + 1]) == step.text


def test_a_token_across_a_border_ends_the_step_before() -> None:
    words = ["a", ".\n\nThen", " b", "\n\n", "c\n\nd\n\n", ""]
    steps = Splitter().steps([0, 1, 2, 3, 4, 5], pieces(words))
    assert steps == [
        Step("a.\n\nThen", 0, 1),
        Step(" b\n\n", 2, 3),
        Step("c\n\nd\n\n", 4, 5),  # two steps in one token are one
    ]


def test_by_token() -> None:
    words = ["a", "b", "|", "c"]
    splitter = Splitter(by="token", token_ids=(2,))
    assert splitter.steps([0, 2, 1, 2, 3], pieces(words)) == [
        Step("a|", 0, 1),
        Step("b|", 2, 3),
        Step("c", 4, 4),
    ]
    assert splitter.steps([0, 2], pieces(words)) == [Step("a|", 0, 1)]
    assert splitter.steps([], pieces(words)) == []
    two = splitter.model_copy(update={"max_steps": 2})
    assert two.steps([0, 2, 1, 2, 3], pieces(words)) == [Step("a|", 0, 1), Step("b|c", 2, 4)]


def test_bytes_that_are_no_character() -> None:
    """A model may write them; their places are still given."""
    tokens = [*encode("a"), 0xFF + 1, 0xFF + 1, *encode("\nb")]
    ends = token_ends(tokens, decode)
    assert ends[-1] == len(decode(tokens))
    assert ends == sorted(ends)
    assert [s.text for s in Splitter(by="line").steps(tokens, decode)] == ["a��\n", "b"]
    stuck = [0xFF + 1] * 9
    assert token_ends(stuck, decode)[-1] == 9


def test_each_distinct_token_is_decoded_once() -> None:
    calls = []

    def counted(tokens) -> str:
        calls.append(len(tokens))
        return decode(tokens)

    token_ends(encode("abab\n" * 200), counted)
    assert len(calls) == 4  # the whole, "a", "b" and the newline


def test_words_whose_blank_is_lost_alone() -> None:
    """As sentencepiece does: only in company is it seen."""
    words = [" one", " two", "\n", " three"]

    def strip(tokens) -> str:
        return "".join(words[t] for t in tokens).lstrip(" ")

    assert token_ends([0, 1, 2, 3], strip) == [3, 7, 8, 14]


def test_a_tokenizer_whose_pieces_do_not_add_up() -> None:
    """It drops the blank before the first word, wherever it starts to decode."""
    words = [" ab", " c", "\n", " d"]

    def strip(tokens) -> str:
        return "".join(words[t] for t in tokens).removeprefix(" ")

    steps = Splitter(by="line").steps([0, 1, 2, 3], strip)
    assert steps == [Step("ab c\n", 0, 2), Step(" d", 3, 3)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"by": "regex"}, "by: regex needs `pattern`"),
        ({"by": "regex", "pattern": "("}, "pattern: '.' is not a regular expression"),
        ({"by": "token"}, "by: token needs `token_ids`"),
        ({"by": "word"}, "line"),
        ({"max_steps": 0}, "max_steps"),
    ],
)
def test_what_is_missing_is_named(fields, message) -> None:
    with pytest.raises(ValidationError, match=message):
        Splitter(**fields)


def test_scores_of_steps_are_read_and_replaced() -> None:
    score = Score(1.0, tokens={3: [0.5, 0.25], 1: [0.0, 0.9]}, steps={3: [0, 1], 1: [1]})
    assert step_scores(score) == [(1, 1, 0.9), (3, 0, 0.5), (3, 1, 0.25)]
    changed = with_step_scores(score, [2.0, None, 0.0])
    assert changed.tokens == {3: [0.0, 0.0], 1: [0.0, 2.0]}
    assert changed.steps == {1: [1], 3: [1]}
    assert changed.value == 1.0
    assert score.tokens[3] == [0.5, 0.25]


def test_a_rollout_as_it_was_after_a_step(make_span) -> None:
    spans = [
        make_span(None, [9], False),
        make_span(0, [1, 2], True),
        make_span(0, [3, 4, 5], True),
        Span(2, "tool", "tool", "t", [7], [False], [0.0], [-1]),
    ]
    rollout = Rollout(spans, score=Score(1.0), meta={"a": 1})
    assert list(policy_spans(rollout)) == [1, 2]
    cut = cut_after(rollout, 2, Step("x", 0, 1), "so far")
    assert [s.parent for s in cut.spans] == [None, 0]
    assert cut.spans[1].tokens == [3, 4]
    assert cut.spans[1].logprobs == [-0.5, -0.5]
    assert (cut.reply, cut.score, cut.meta) == ("so far", None, {"a": 1})
    assert rollout.spans[2].tokens == [3, 4, 5]


@pytest.fixture(scope="module")
def trained():
    """A byte-level BPE, trained here: its tokens cut through characters and across lines."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = ["first, 2+2=4.\n\nso the € sum is 😀 4\n\n", "é😀€é: the end.\n\nthe next is 4."] * 20
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[]
        ),
    )
    return tokenizer


@given(st.text(alphabet="the so4.\n€😀é=", max_size=60))
def test_a_trained_tokenizer(trained, text: str) -> None:
    tokens = trained.encode(text).ids
    steps = Splitter().steps(tokens, trained.decode)
    assert "".join(step.text for step in steps) == (text if text.strip() else "")
    assert all(a.end + 1 == b.start for a, b in pairwise(steps))
    borders = [end for _, end in Splitter().split(text)]

    def covered(count: int) -> int:
        pairs = zip(trained.decode(tokens[:count]), text, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    for step in steps[:-1]:
        assert any(covered(step.end) < b <= covered(step.end + 1) for b in borders)
    assert not steps or steps[-1].end == len(tokens) - 1
