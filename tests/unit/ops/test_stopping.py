from __future__ import annotations

import pytest

from trainer.ops.stopping import StopText


def decode_bytes(tokens):
    """A byte per token: characters may be cut between tokens."""
    return bytes(tokens).decode("utf-8", errors="replace")


def first_stop(strings, tokens, decode):
    """Number of tokens when the stop is seen, fed one by one; None if never."""
    stop = StopText(strings, decode)
    for n in range(1, len(tokens) + 1):
        if stop.completed(tokens[:n]):
            return n
    return None


@pytest.mark.parametrize(
    ("text", "strings", "kept"),
    [
        ("one two three", ["two"], "one two"),
        ("one two three", ["three", "e t"], "one t"),
        ("naïve → end", ["→"], "naïve →"),
        ("naïve", ["ï"], "naï"),
        ("a\n\nb", ["\n\n"], "a\n\n"),
        ("no stop here", ["x"], None),
        ("aab", ["ab"], "aab"),
        ("héé" * 30 + "!", ["é!"], "héé" * 30 + "!"),
    ],
)
def test_the_token_that_completes_a_string_is_the_last(text, strings, kept):
    tokens = list(text.encode())
    n = first_stop(strings, tokens, decode_bytes)
    assert (n if kept is None else decode_bytes(tokens[:n])) == kept


def test_tokens_of_several_characters():
    words = ["Ans", "wer: ", "42</ans", "wer> more"]
    assert first_stop(["</answer>"], [0, 1, 2, 3], lambda ids: "".join(words[i] for i in ids)) == 4
    assert first_stop(["42"], [0, 1, 2, 3], lambda ids: "".join(words[i] for i in ids)) == 3


def test_most_steps_need_no_text():
    calls = []

    def decode(tokens):
        calls.append(len(tokens))
        return "".join("ab"[t] for t in tokens)

    stop = StopText(["xyz"], decode)
    tokens = []
    for i in range(100):
        tokens.append(i % 2)
        assert not stop.completed(tokens)
    assert calls == [1, 1]
