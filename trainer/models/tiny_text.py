"""A real Qwen2 or Qwen3 of a few hundred thousand parameters, with a tokenizer of characters.

Made from its fields alone: no file, no network. It is for tiny scales and tests.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from trainer.models.base import Model, initialised, save_tokens

if TYPE_CHECKING:
    from pathlib import Path

    from trainer.renderer import Renderer

_TEMPLATE = """{%- for message in messages -%}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- else -%}{%- for part in message['content'] -%}{{- part['text'] -}}{%- endfor -%}{%- endif -%}
{%- if message['role'] == 'assistant' -%}{{- '<eos>' -}}
{%- elif message['role'] == 'system' -%}{{- '\\n' -}}{%- endif -%}
{%- endfor -%}"""


class TinyText(Model):
    architecture: Literal["qwen2", "qwen3"] = "qwen2"
    hidden: int = Field(96, gt=0)
    layers: int = Field(2, gt=0)
    heads: int = Field(3, gt=0)
    kv_heads: int = Field(1, gt=0)
    intermediate: int = Field(256, gt=0)
    tied: bool = True
    """The head shares the embedding's weights."""
    initializer_range: float = Field(0.08, gt=0)
    """Standard deviation of the first weights; transformers' 0.02 makes so small a model slow to
    learn."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    rope_theta: float = Field(10000.0, gt=0)
    max_positions: int = Field(512, gt=0)
    seed: int = 0
    """Of the first weights."""

    @model_validator(mode="after")
    def _divides(self) -> TinyText:
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise ValueError(f"hidden / heads must be even, got {self.hidden} / {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads: {self.kv_heads} does not divide heads: {self.heads}")
        return self

    def config(self) -> Any:
        from transformers import Qwen2Config, Qwen3Config

        fields = {
            "vocab_size": len(_vocabulary()),
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "tie_word_embeddings": self.tied,
            "initializer_range": self.initializer_range,
            "attention_dropout": self.attention_dropout,
            "max_position_embeddings": self.max_positions,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "eos_token_id": _vocabulary()["<eos>"],
            "pad_token_id": _vocabulary()["<pad>"],
            "bos_token_id": None,
        }
        if self.architecture == "qwen2":
            return Qwen2Config(**fields, architectures=["Qwen2ForCausalLM"])
        return Qwen3Config(
            **fields, head_dim=self.hidden // self.heads, architectures=["Qwen3ForCausalLM"]
        )

    def renderer(self) -> Renderer:
        from trainer.renderer import Renderer

        return Renderer(_tokenizer(), model_config=self.config())

    def load(self, *, dtype: str, attn_implementation: str | dict[str, str]) -> Any:
        from transformers import Qwen2ForCausalLM, Qwen3ForCausalLM

        return initialised(
            Qwen2ForCausalLM if self.architecture == "qwen2" else Qwen3ForCausalLM,
            self.config(),
            seed=self.seed,
            dtype=dtype,
            attn_implementation=attn_implementation,
        )

    def save_assets(self, folder: Path) -> None:
        config = self.config()
        eos, pad = config.eos_token_id, config.pad_token_id
        save_tokens(folder, config, _tokenizer(), eos=[eos], pad=pad)


def _vocabulary() -> dict[str, int]:
    """102 tokens: two controls, four tags, every printable ASCII character and the newline."""
    tokens = ["<pad>", "<eos>", "<think>", "</think>", "<answer>", "</answer>"]
    characters = string.digits + string.punctuation + string.ascii_letters
    # "Ġ" and "Ċ" are how a byte-level tokenizer writes the space and the newline
    return {token: i for i, token in enumerate([*tokens, *characters, "Ġ", "Ċ"])}


def _tokenizer() -> Any:
    """Qwen's own byte-level tokenizer without merges, so that each character is a token. (For a
    folder of type `qwen2`, `AutoTokenizer` always rebuilds this class, whatever was saved.)"""
    from transformers import AddedToken, Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer(
        vocab=_vocabulary(),
        merges=[],
        unk_token=None,  # pyright: ignore[reportArgumentType]
        eos_token="<eos>",
        pad_token="<pad>",
        padding_side="left",
    )
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    tokenizer.chat_template = _TEMPLATE
    return tokenizer
