"""The folder is what peft itself would load."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, Qwen2Config

from trainer.ops.adapters import Adapter, adapter_weights, write_adapter
from trainer.ops.merging import merged_weights


@pytest.fixture
def model():
    config = Qwen2Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def with_adapter(model):
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "down_proj"])
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_()
    return adapted


def test_peft_reads_it_back(model, tmp_path):
    ids = torch.arange(8)[None]
    bare = {name: weight.clone() for name, weight in model.state_dict().items()}
    before = with_adapter(model)
    expected = before(input_ids=ids).logits
    adapter = Adapter(3, 6, lambda: adapter_weights(model))
    size = write_adapter(adapter, tmp_path / "v1", dtype="float32")
    assert size == 4 * 3 * 2 * ((16 + 16) + (32 + 16))  # q_proj 16 -> 16, down_proj 32 -> 16

    fresh = AutoModelForCausalLM.from_config(model.config).eval()
    fresh.load_state_dict(bare)
    read = PeftModel.from_pretrained(fresh, tmp_path / "v1")
    torch.testing.assert_close(read(input_ids=ids).logits, expected)


def test_the_base_is_what_it_was_before_the_adapter(model):
    before = {name: weight.clone() for name, weight in merged_weights(model)}
    with_adapter(model)
    base = dict(merged_weights(model, merge=False))
    assert base.keys() == before.keys()
    assert all(torch.equal(base[name], before[name]) for name in base)
    merged = dict(merged_weights(model))
    assert [name for name in base if not torch.equal(base[name], merged[name])] == [
        f"model.layers.{i}.{layer}.weight"
        for i in range(2)
        for layer in ("self_attn.q_proj", "mlp.down_proj")
    ]
