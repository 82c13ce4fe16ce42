from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from transformers import AutoImageProcessor, AutoTokenizer

from trainer.models.pretrained import Pretrained
from trainer.models.tiny_vision import TinyVision

ATTENTION = {"text_config": "eager", "vision_config": "sdpa"}


@pytest.fixture(scope="module")
def messages():
    image = Image.new("RGB", (84, 84), (122, 116, 104))
    image.paste((220, 40, 40), (10, 20, 50, 60))
    parts = [
        {"type": "image", "image": image},
        {"type": "text", "text": "where is the red square ?"},
    ]
    return ({"role": "user", "content": parts},)


def logits(module, rendered):
    rows = torch.tensor([rendered.tokens])
    kinds = (rows == module.config.image_token_id).int()
    with torch.no_grad():
        return module(input_ids=rows, mm_token_type_ids=kinds, **rendered.inputs).logits


def load(model, dtype="float32"):
    return model.load(dtype=dtype, attn_implementation=ATTENTION)


def test_a_saved_folder_is_the_same_model(tmp_path, messages):
    model = TinyVision(seed=2)
    module = load(model)
    module.save_pretrained(tmp_path)
    model.save_assets(tmp_path)
    again = Pretrained(path=str(tmp_path))
    rendered, copy = model.renderer().render(messages), again.renderer().render(messages)
    assert copy.tokens == rendered.tokens
    assert all(torch.equal(copy.inputs[key], rendered.inputs[key]) for key in rendered.inputs)
    assert again.renderer().banned_ids == model.renderer().banned_ids
    assert torch.equal(logits(load(again), copy), logits(module, rendered))


def test_transformers_alone_reads_the_folder(tmp_path):
    model = TinyVision()
    model.save_assets(tmp_path)
    reply = "<think>red</think><answer>[1,2,13,14]</answer>"
    assert AutoTokenizer.from_pretrained(tmp_path)(reply).input_ids == model.renderer().encode(
        reply
    )
    assert AutoImageProcessor.from_pretrained(tmp_path).size["longest_edge"] == 84 * 84
    for name in ("preprocessor_config.json", "processor_config.json"):
        assert json.loads((tmp_path / name).read_text())["processor_class"] == "Qwen2_5_VLProcessor"


def test_the_first_weights_see_left_from_right(messages):
    """With the usual rope_theta the model is nearly blind along the width."""

    def gap(rope_theta):
        model = TinyVision(rope_theta=rope_theta)
        rotary = load(model).model.language_model.rotary_emb
        positions = torch.zeros(3, 1, 2, dtype=torch.long)
        positions[2, 0, 1] = 1  # one step to the right
        _cos, sin = rotary(torch.zeros(1, 2, 96), positions)
        section = rotary.config.rope_parameters["mrope_section"]
        assert sum(section) == 16
        return (sin[..., 1, :] - sin[..., 0, :]).abs().max().item()

    assert gap(10.0) > 10 * gap(1e6)


def test_sub_configurations_take_their_own_attention():
    module = load(TinyVision())
    assert module.model.language_model.config._attn_implementation == "eager"
    assert module.model.visual.config._attn_implementation == "sdpa"


def test_the_seed_decides_the_weights_and_nothing_else_changes():
    state = torch.get_rng_state()
    first, again, other = (load(TinyVision(seed=s)).lm_head.weight for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_fields_reach_the_model():
    model = TinyVision(attention_dropout=0.25, vision_layers=2, image_size=112)
    module = load(model)
    assert not module.training
    assert module.model.language_model.layers[0].self_attn.attention_dropout == 0.25
    assert len(module.model.visual.blocks) == 2
    assert load(model, "bfloat16").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden": 100}, "hidden / heads"),
        ({"kv_heads": 2}, "kv_heads"),
        ({"vision_heads": 3}, "vision_hidden"),
        ({"image_size": 90}, "image_size"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        TinyVision(**fields)
