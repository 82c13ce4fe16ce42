"""Contract of `model:`: where architecture, weights, tokenizer and image processor come from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.plugin import Plugin

if TYPE_CHECKING:
    from pathlib import Path

    from trainer.renderer import Renderer


class Model(Plugin):
    """Nothing is loaded before a method is called, so a recipe can be checked without weights."""

    family: ClassVar[str] = "trainer.models"

    def config(self) -> Any:
        """The transformers configuration; no weights are read."""
        raise NotImplementedError

    def renderer(self) -> Renderer:
        """Tokenizer and image processor."""
        raise NotImplementedError

    def load(self, *, dtype: str, attn_implementation: str | dict[str, str]) -> Any:
        """A fresh transformers model on the CPU, in eval mode.

        `dtype`: `float32` or `bfloat16`. `attn_implementation`: as transformers takes it; a dict
        maps sub-configurations (`text_config`, `vision_config`) of vision models.
        """
        raise NotImplementedError

    def value_head(self) -> dict[str, Any] | None:
        """Tensors of a head that was trained and saved with the model, `weight` f[1, D] and `bias`
        f[1]: a critic or a reward model goes on from it. None: the head starts at 0."""
        return None

    def save_assets(self, folder: Path) -> None:
        """Writes config, tokenizer and processor beside exported weights, so that `folder`
        loads with transformers' `from_pretrained`."""
        raise NotImplementedError


def initialised(
    model_class: Any, config: Any, *, seed: int, dtype: str, attn_implementation: Any
) -> Any:
    """A model with random weights that depend on `config` and `seed` alone: not on the dtype, and
    without touching torch's global random state."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = model_class._from_config(
            config, dtype=torch.float32, attn_implementation=attn_implementation
        )
        if dtype != "float32":  # not `.to`: buffers such as rotary frequencies stay float32
            weights = model.state_dict()
            model = model_class._from_config(
                config, dtype=getattr(torch, dtype), attn_implementation=attn_implementation
            )
            model.load_state_dict(weights)
    return model.eval()


def save_tokens(folder: Path, config: Any, tokenizer: Any, *, eos: list[int], pad: int) -> None:
    """Writes config.json, generation_config.json and the tokenizer's files."""
    from transformers import GenerationConfig

    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    GenerationConfig(eos_token_id=eos, pad_token_id=pad).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_image_processor(folder: Path, image_processor: Any, processor_class: str) -> None:
    """Writes the processor's files under the names of transformers' standard classes, which also
    other programs (vLLM) look for; videos get the same patches."""
    image_processor.save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    image = json.loads(path.read_text()) | {"processor_class": processor_class}
    video = image | {"video_processor_type": "Qwen2VLVideoProcessor"}
    del video["image_processor_type"]
    for name, value in (
        ("preprocessor_config.json", image),
        ("video_preprocessor_config.json", video),
        ("processor_config.json", {"processor_class": processor_class}),
    ):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")
