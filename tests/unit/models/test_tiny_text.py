from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainer.models.pretrained import Pretrained
from trainer.models.tiny_text import TinyText

PROMPT = ({"role": "user", "content": "3+4+5="},)


def load(model, dtype="float32"):
    return model.load(dtype=dtype, attn_implementation="sdpa")


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_a_saved_folder_is_the_same_model(tmp_path, architecture):
    model = TinyText(architecture=architecture, seed=3)
    module = load(model)
    module.save_pretrained(tmp_path)
    model.save_assets(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    again = Pretrained(path=str(tmp_path))
    renderer, copy = model.renderer(), again.renderer()
    reply = "<think> It's\n3</think><answer>12</answer>"
    tokens = renderer.render(PROMPT).tokens + renderer.encode(reply)
    assert copy.render(PROMPT).tokens + copy.encode(reply) == tokens
    assert (copy.stop_ids, copy.banned_ids) == (renderer.stop_ids, renderer.banned_ids)
    rows = torch.tensor([tokens])
    assert torch.equal(load(again)(rows).logits, module(rows).logits)


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_transformers_alone_reads_the_folder(tmp_path, architecture):
    model = TinyText(architecture=architecture)
    load(model).save_pretrained(tmp_path)
    model.save_assets(tmp_path)
    reply = "<think>The 1 + 8</think>"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer(reply).input_ids == model.renderer().encode(reply)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.model_type == architecture


def test_the_seed_decides_the_weights_and_nothing_else_changes():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (load(TinyText(seed=s)).lm_head.weight for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_rounds_the_same_weights():
    whole, half = load(TinyText()), load(TinyText(), "bfloat16")
    assert half.dtype == torch.bfloat16
    for (name, a), b in zip(whole.named_parameters(), half.parameters(), strict=True):
        assert torch.equal(a.bfloat16(), b), name
    assert half.model.rotary_emb.inv_freq.dtype == torch.float32


def test_fields_reach_the_model():
    model = TinyText(hidden=64, heads=2, layers=3, tied=False, attention_dropout=0.25)
    module = load(model)
    assert not module.training
    assert len(module.model.layers) == 3
    assert module.model.layers[0].self_attn.attention_dropout == 0.25
    assert module.lm_head.weight is not module.model.embed_tokens.weight
    assert module.config._attn_implementation == "sdpa"
    assert module.model.embed_tokens.weight.std().item() == pytest.approx(0.08, rel=0.05)
    assert module.config.vocab_size == len(model.renderer().tokenizer)


def test_dropout_is_active_in_training_only():
    module = load(TinyText(attention_dropout=0.5))
    rows = torch.arange(8)[None]
    assert torch.equal(module(rows).logits, module(rows).logits)
    module.train()
    assert not torch.equal(module(rows).logits, module(rows).logits)


@pytest.mark.parametrize("fields", [{"hidden": 97}, {"kv_heads": 2}])
def test_sizes_that_do_not_divide_are_refused(fields):
    with pytest.raises(ValidationError, match="heads"):
        TinyText(**fields)
