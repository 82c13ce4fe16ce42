"""A real Qwen2.5-VL of 0.4 million parameters with its own image processor, made from its fields.

No file, no network, no torchvision. It reads the small pictures of `synthetic/shapes`, and is for
tiny scales and tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from trainer.models.base import Model, initialised, save_image_processor, save_tokens

if TYPE_CHECKING:
    from pathlib import Path

    from trainer.renderer import Renderer

_CONTROLS = (
    "<pad>",
    "<|im_end|>",
    "<unk>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|im_start|>",
)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_WORDS = (
    "where is the how many what color circle square triangle shapes are there red green blue "
    "yellow purple orange high tall bar in this picture chart a an of and to user assistant system"
)
_NUMBERS = 21
_TEMPLATE = """{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- else -%}{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- else -%}{{- part['text'] -}}{%- endif -%}
{%- endfor -%}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""


class TinyVision(Model):
    hidden: int = Field(96, gt=0)
    layers: int = Field(2, gt=0)
    heads: int = Field(3, gt=0)
    kv_heads: int = Field(1, gt=0)
    intermediate: int = Field(256, gt=0)
    vision_hidden: int = Field(64, gt=0)
    vision_layers: int = Field(1, gt=0)
    vision_heads: int = Field(2, gt=0)
    vision_intermediate: int = Field(128, gt=0)
    tied: bool = True
    """The head shares the embedding's weights."""
    initializer_range: float = Field(0.08, gt=0)
    """Standard deviation of the first weights."""
    rope_theta: float = Field(10.0, gt=0)
    """On a 3 x 3 grid of image tokens the usual 1e4 to 1e6 turn the width axis by less than
    0.004 rad a step: such a model is blind to the left and the right."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    patch: int = Field(14, gt=0)
    """Pixels per side of a patch; 2 x 2 patches make one image token."""
    image_size: int = Field(84, gt=0)
    """Larger images are shrunk to this many pixels squared: 84 gives 9 image tokens."""
    max_positions: int = Field(512, gt=0)
    seed: int = 0
    """Of the first weights."""

    @model_validator(mode="after")
    def _divides(self) -> TinyVision:
        if self.hidden % self.heads or (self.hidden // self.heads) % 8:
            raise ValueError(f"hidden / heads must be 8 k, got {self.hidden} / {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads: {self.kv_heads} does not divide heads: {self.heads}")
        if self.vision_hidden % self.vision_heads or (self.vision_hidden // self.vision_heads) % 4:
            raise ValueError("vision_hidden / vision_heads must be a multiple of 4")
        if self.image_size % (2 * self.patch):
            raise ValueError(f"image_size must be a multiple of 2 * patch = {2 * self.patch}")
        return self

    def config(self) -> Any:
        from transformers import Qwen2_5_VLConfig

        vocabulary = _vocabulary()
        half = self.hidden // self.heads // 2
        time, height = half // 4, half * 3 // 8
        return Qwen2_5_VLConfig(
            architectures=["Qwen2_5_VLForConditionalGeneration"],
            text_config={
                "vocab_size": len(vocabulary),
                "hidden_size": self.hidden,
                "intermediate_size": self.intermediate,
                "num_hidden_layers": self.layers,
                "num_attention_heads": self.heads,
                "num_key_value_heads": self.kv_heads,
                "max_position_embeddings": self.max_positions,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": self.rope_theta,
                    "mrope_section": [time, height, half - time - height],
                },
                "tie_word_embeddings": self.tied,
                "initializer_range": self.initializer_range,
                "attention_dropout": self.attention_dropout,
                "bos_token_id": None,
                "eos_token_id": vocabulary["<|im_end|>"],
                "pad_token_id": vocabulary["<pad>"],
            },
            vision_config={
                "depth": self.vision_layers,
                "hidden_size": self.vision_hidden,
                "intermediate_size": self.vision_intermediate,
                "num_heads": self.vision_heads,
                "patch_size": self.patch,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "window_size": 2 * self.image_size,
                "out_hidden_size": self.hidden,
                "fullatt_block_indexes": [self.vision_layers - 1],
                "initializer_range": self.initializer_range,
            },
            image_token_id=vocabulary["<|image_pad|>"],
            video_token_id=vocabulary["<|video_pad|>"],
            vision_start_token_id=vocabulary["<|vision_start|>"],
            vision_end_token_id=vocabulary["<|vision_end|>"],
            tie_word_embeddings=self.tied,
            eos_token_id=vocabulary["<|im_end|>"],
            pad_token_id=vocabulary["<pad>"],
        )

    def renderer(self) -> Renderer:
        from trainer.renderer import Renderer

        return Renderer(_tokenizer(), self._image_processor(), model_config=self.config())

    def load(self, *, dtype: str, attn_implementation: str | dict[str, str]) -> Any:
        from transformers import Qwen2_5_VLForConditionalGeneration

        return initialised(
            Qwen2_5_VLForConditionalGeneration,
            self.config(),
            seed=self.seed,
            dtype=dtype,
            attn_implementation=attn_implementation,
        )

    def save_assets(self, folder: Path) -> None:
        vocabulary = _vocabulary()
        eos, pad = vocabulary["<|im_end|>"], vocabulary["<pad>"]
        save_tokens(folder, self.config(), _tokenizer(), eos=[eos], pad=pad)
        save_image_processor(folder, self._image_processor(), "Qwen2_5_VLProcessor")

    def _image_processor(self) -> Any:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil,
        )

        return Qwen2VLImageProcessorPil(
            patch_size=self.patch,
            merge_size=2,
            temporal_patch_size=2,
            size={"shortest_edge": (2 * self.patch) ** 2, "longest_edge": self.image_size**2},
        )


def _vocabulary() -> dict[str, int]:
    """Controls, tags, the words of `synthetic/shapes`, punctuation, and 0 to 20 as one token each:
    a coordinate is one token."""
    numbers = [str(i) for i in range(_NUMBERS)]
    tokens = [*_CONTROLS, *_TAGS, *_WORDS.split(), *"[](),.?:= \n", *numbers]
    return {token: i for i, token in enumerate(tokens)}


def _tokenizer() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import AddedToken, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(_vocabulary(), unk_token="<unk>"))
    words = Regex(r"[a-zA-Z]+|[0-9]+|[^a-zA-Z0-9]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(words, "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in _TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        additional_special_tokens=list(_CONTROLS[3:]),
        padding_side="left",
        chat_template=_TEMPLATE,
    )
