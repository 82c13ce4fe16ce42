"""Templates: system prompt, suffix, and where images go."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from trainer.errors import DataError
from trainer.plugin import find
from trainer.templates.base import Template


def build(name="plain", **fields):
    return find(Template, name)(**fields)


def test_plain_is_the_question_and_nothing_else():
    assert build().messages({"question": "3+4="}) == ({"role": "user", "content": "3+4="},)


def test_system_prompt_comes_first_and_suffix_last():
    messages = build(system="Be brief.", suffix=" Go.").messages({"question": "3+4="})
    assert messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "3+4= Go."},
    )


def test_a_rows_own_system_message_wins():
    row = {"messages": [{"role": "system", "content": "A"}, {"role": "user", "content": "B"}]}
    assert [m["content"] for m in build(system="C").messages(row)] == ["A", "B"]


def test_the_row_is_not_changed():
    row = {"messages": [{"role": "user", "content": "B"}]}
    build(suffix="!").messages(row)
    assert row == {"messages": [{"role": "user", "content": "B"}]}


@pytest.mark.parametrize(("images", "types"), [("first", "iit"), ("last", "tii")])
def test_images_go_before_or_after_the_text(images, types):
    (message,) = build(images=images).messages({"question": "q", "images": ["a", "b"]})
    assert "".join(part["type"][0] for part in message["content"]) == types
    assert [p["image"] for p in message["content"] if p["type"] == "image"] == ["a", "b"]


def test_suffix_follows_parts():
    (message,) = build(suffix="!").messages({"question": "q", "images": ["a"]})
    assert message["content"][-1] == {"type": "text", "text": "!"}


def test_image_parts_are_filled_in_order():
    content = [{"type": "image"}, {"type": "text", "text": "or"}, {"type": "image", "image": None}]
    row = {"messages": [{"role": "user", "content": content}], "images": ["a", "b"]}
    (message,) = build().messages(row)
    assert [part.get("image") for part in message["content"]] == ["a", None, "b"]


def test_marks_in_the_text_say_where_images_go():
    (message,) = build().messages({"question": "<image> or <image>?", "images": ["a", "b"]})
    assert message["content"] == [
        {"type": "image", "image": "a"},
        {"type": "text", "text": " or "},
        {"type": "image", "image": "b"},
        {"type": "text", "text": "?"},
    ]


@pytest.mark.parametrize("question", ["<image>", "<image> <image> <image>"])
def test_marks_and_images_must_match(question):
    with pytest.raises(DataError, match=r"image part\(s\) in its messages, 2 image\(s\)"):
        build().messages({"question": question, "images": ["a", "b"]})


def test_an_unknown_order_is_refused():
    with pytest.raises(ValidationError, match="'first' or 'last'"):
        build(images="middle")
