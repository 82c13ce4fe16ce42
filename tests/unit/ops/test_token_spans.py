from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from trainer.models.pretrained import Pretrained
from trainer.ops.token_spans import character_spans, token_range


def decode_bytes(tokens):
    return bytes(tokens).decode("utf-8", "replace")


@given(st.text(min_size=1))
def test_every_character_belongs_to_the_bytes_that_make_it(text):
    """A tokenizer of single bytes: the hardest case for characters of several tokens."""
    text = text.replace("\ufffd", "?").encode("utf-8", "replace").decode()
    tokens = list(text.encode())
    spans = character_spans(tokens, decode_bytes)
    assert len(spans) == len(tokens)
    for place, letter in enumerate(text):
        inside = token_range(spans, place, place + 1)
        assert bytes(tokens[i] for i in inside).decode() == letter


def test_the_answers_tokens_by_a_real_tokenizer():
    path = Path(__file__).parents[3] / "configs" / "model" / "tiny_text"
    renderer = Pretrained(path=str(path)).renderer()
    reply = "<think>1+8=09</think><answer>12</answer>"
    tokens = [*renderer.encode(reply), renderer.stop_ids[0]]
    spans = character_spans(tokens, lambda ids: renderer.tokenizer.decode(list(ids)))
    start = reply.index("12")
    inside = token_range(spans, start, start + 2)
    assert renderer.decode([tokens[i] for i in inside]) == "12"
    assert renderer.decode(tokens[: inside.start]) == reply[:start]
    assert token_range(spans, 5, 5) == range(0)


def test_what_shows_nothing_has_no_characters():
    words = {1: "a", 2: "", 3: "b"}
    spans = character_spans([1, 2, 3], lambda ids: "".join(words[i] for i in ids))
    assert spans == [(0, 1), (1, 1), (1, 2)]
    assert token_range(spans, 1, 2) == range(2, 3)


def test_a_reply_that_ends_within_a_character_keeps_its_tokens():
    spans = character_spans(list("né".encode())[:2], decode_bytes)
    assert spans == [(0, 1), (1, 2)]
