"""Templates to tokens and back, placeholders, and turns that follow a sampled one."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from trainer.errors import ConfigError, DataError
from trainer.models.tiny_text import TinyText
from trainer.models.tiny_vision import TinyVision
from trainer.renderer import Renderer


@pytest.fixture
def text():
    return TinyText().renderer()


@pytest.fixture(scope="module")
def vision():
    return TinyVision(image_size=168).renderer()


def user(*parts):
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image", "image": part}
        for part in parts
    ]
    return {"role": "user", "content": content}


def picture(width=84, height=84):
    return Image.new("RGB", (width, height), "red")


def with_template(renderer, template):
    renderer.tokenizer.chat_template = template
    return Renderer(renderer.tokenizer)


def test_a_text_prompt_is_its_characters(text):
    rendered = text.render(({"role": "user", "content": "3+4+5="},))
    assert len(rendered.tokens) == 6
    assert (rendered.text, rendered.inputs) == ("3+4+5=", {})
    assert text.render((user("3+4", "+5="),)).tokens == rendered.tokens


def test_decode_keeps_tags_and_spaces_and_drops_one_stop(text):
    reply = "<think> 1 + 8 = 09 .\n</think><answer>11</answer>"
    (stop,) = text.stop_ids
    assert text.decode(text.encode(reply)) == reply
    assert text.decode([*text.encode(reply), stop]) == reply
    assert text.decode([*text.encode(reply), stop, stop]) == reply + "<eos>"
    assert text.decode([]) == ""


def test_tags_are_single_tokens(text, vision):
    for renderer in (text, vision):
        for tag in ("<think>", "</think>", "<answer>", "</answer>"):
            assert len(renderer.encode(tag)) == 1


def test_stop_and_banned_ids(text, vision):
    assert (text.stop_ids, text.banned_ids) == ((1,), (0,))
    names = vision.tokenizer.convert_ids_to_tokens(vision.banned_ids)
    placeholders = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    assert sorted(names) == sorted(["<pad>", *placeholders])


def test_more_stop_ids_come_from_the_generation_config_and_are_not_banned(text):
    from transformers import GenerationConfig

    config = GenerationConfig(eos_token_id=[7, 0])
    renderer = Renderer(text.tokenizer, model_config=TinyText().config(), generation_config=config)
    assert renderer.stop_ids == (1, 7, 0)
    assert renderer.banned_ids == ()  # a padding token that also ends the text must be sampled


def test_images_fill_their_placeholders(vision):
    images = [picture(84, 84), picture(168, 84)]
    rendered = vision.render((user(images[0], "and", images[1], "?"),))
    pad = vision.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert rendered.tokens.count(pad) == 9 + 18
    assert rendered.inputs["image_grid_thw"].tolist() == [[1, 6, 6], [1, 6, 12]]
    assert rendered.inputs["pixel_values"].shape == (36 + 72, 3 * 2 * 14 * 14)
    assert vision.resized_sizes(rendered.inputs) == [(84, 84), (84, 168)]
    assert vision.resized_sizes({}) == []
    first = rendered.tokens.index(pad)
    assert rendered.tokens[first : first + 9] == [pad] * 9
    assert rendered.tokens[first + 9] != pad


def test_image_features_are_those_of_the_processor(vision):
    image = Image.effect_noise((84, 56), 60).convert("RGB")
    rendered = vision.render((user(image, "?"),))
    alone = vision.image_processor(images=[image], return_tensors="pt")
    assert torch.equal(rendered.inputs["pixel_values"], alone["pixel_values"])


def test_text_only_prompts_of_a_vision_model_have_no_inputs(vision):
    assert vision.render(({"role": "user", "content": "where is the circle ?"},)).inputs == {}


def test_a_placeholder_in_the_text_is_found_and_named(vision):
    with pytest.raises(DataError, match=r"prompt 'is <\|image_pad\|> red'.*2 image placeholder"):
        vision.render((user(picture(), "is <|image_pad|> red"),))
    with pytest.raises(DataError, match=r"train.jsonl:7: 2 image placeholder"):
        vision.render((user(picture(), "is <|image_pad|> red"),), name="train.jsonl:7")


def test_a_template_that_skips_images_is_found(vision):
    renderer = Renderer(
        TinyVision().renderer().tokenizer,
        vision.image_processor,
        model_config=TinyVision().config(),
    )
    renderer.tokenizer.chat_template = "{% for m in messages %}red{% endfor %}"
    with pytest.raises(DataError, match=r"0 image placeholder\(s\).*1 image"):
        renderer.render((user(picture()),))


def test_images_for_a_text_model_are_refused(text):
    with pytest.raises(DataError, match="the model reads text only"):
        text.render((user(picture(), "3"),))


def test_other_kinds_of_parts_are_refused(vision):
    message = {"role": "user", "content": [{"type": "audio", "audio": b""}]}
    with pytest.raises(DataError, match="must be of type text or image"):
        vision.render((message,))


def test_words_that_a_small_tokenizer_lacks_do_not_vanish(text, vision):
    with pytest.raises(DataError, match=r"cannot write '3ä4', it reads '34'"):
        text.encode("3ä4")
    with pytest.raises(DataError, match=r"cannot write 'where is Wally \?'"):
        vision.encode("where is Wally ?")


@pytest.mark.parametrize("kind", ["text", "vision"])
def test_a_later_turn_continues_the_conversation_exactly(request, kind):
    renderer = request.getfixturevalue(kind)
    first, reply, second = "3", "<answer>7</answer>", "20"
    turns = ({"role": "user", "content": first}, {"role": "assistant", "content": reply})
    more = {"role": "user", "content": second}
    sampled = [*renderer.encode(reply), renderer.stop_ids[0]]
    pieces = [
        *renderer.render(turns[:1]).tokens,
        *sampled,
        *renderer.render_more((more,)).tokens,
    ]
    assert pieces == renderer.render((*turns, more)).tokens
    cut = [
        *renderer.render(turns[:1]).tokens,
        *sampled[:-1],
        *renderer.render_more((more,), closed=False).tokens,
    ]
    assert cut == pieces


def test_what_the_template_puts_after_the_end_of_turn_is_not_lost(vision):
    more = vision.render_more(({"role": "user", "content": "where is the circle ?"},))
    assert more.text.startswith("\n<|im_start|>user\n")
    assert more.text.endswith("<|im_start|>assistant\n")


def test_a_later_turn_may_bring_an_image(vision):
    more = vision.render_more((user(picture(), "?"),))
    assert vision.resized_sizes(more.inputs) == [(84, 84)]
    assert len(more.tokens) > 9


def test_a_template_that_rewrites_earlier_turns_is_refused(text):
    dropping = (
        "{% for m in messages %}{% if m['role'] == 'assistant' and not loop.last %}"
        "{{ 'x' }}{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    renderer = with_template(text, dropping)
    with pytest.raises(ConfigError, match=r"rewrites earlier turns.*model.chat_template"):
        renderer.render_more(({"role": "user", "content": "3"},))


def test_a_template_that_keeps_reasoning_for_tools_only(text):
    """As Qwen3's: a tool's result keeps the reasoning of the turn, a user's turn drops it."""
    template = (
        "{%- for m in messages -%}"
        "{%- if m['role'] == 'assistant' and '</think>' not in m['content'] -%}"
        "{%- if loop.last -%}{{ '<think></think>' }}{%- endif -%}{{ m['content'] }}<eos>"
        "{%- elif m['role'] == 'assistant' -%}"
        "{%- if messages[-1]['role'] == 'user' -%}{{ m['content'].split('</think>')[-1] }}<eos>"
        "{%- else -%}{{ m['content'] }}<eos>{%- endif -%}"
        "{%- else -%}{{ m['content'] }}{%- endif -%}{%- endfor -%}"
    )
    renderer = with_template(text, template)
    assert renderer.render_more(({"role": "tool", "content": "42"},)).text == "42"
    with pytest.raises(ConfigError, match="rewrites earlier turns"):
        renderer.render_more(({"role": "user", "content": "42"},))


def test_a_tokenizer_without_template_is_refused(text):
    with pytest.raises(ConfigError, match=r"no chat template; set model.chat_template"):
        with_template(text, None)
