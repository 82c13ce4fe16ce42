"""Contract of `model:`: where architecture, weights, tokenizer and image processor come from."""

from __future__ import annotations

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

    def save_assets(self, folder: Path) -> None:
        """Writes config, tokenizer and processor beside exported weights, so that `folder`
        loads with transformers' `from_pretrained`."""
        raise NotImplementedError
