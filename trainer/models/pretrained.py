"""Weights, tokenizer and image processor from the Hub or from a local folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from trainer.errors import ConfigError
from trainer.models.base import Model, save_image_processor
from trainer.ops.model_names import located

if TYPE_CHECKING:
    from trainer.renderer import Renderer

_VISION = {
    "qwen2_vl": "Qwen2VLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
    "qwen3_vl_moe": "Qwen3VLProcessor",
}
_PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
)


class Pretrained(Model):
    path: str
    """Name on the Hub (`Qwen/Qwen2.5-0.5B-Instruct`), or a folder relative to where Cohort runs."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    chat_template: str | None = None
    """Jinja text, or the path of a `.jinja` file; replaces the tokenizer's own."""
    min_pixels: int | None = Field(None, gt=0)
    """Smaller images are enlarged to this area; None keeps the processor's."""
    max_pixels: int | None = Field(None, gt=0)
    """Larger images are shrunk to this area: it bounds the image tokens. None keeps the
    processor's."""
    trust_remote_code: bool = False
    """Lets code from the Hub run."""

    def config(self) -> Any:
        """Raises ConfigError if there is no such folder or Hub name."""
        from transformers import AutoConfig

        return self._read(AutoConfig.from_pretrained, "config.json")

    def renderer(self) -> Renderer:
        from trainer.renderer import Renderer

        config = self.config()
        return Renderer(
            self._tokenizer(),
            self._image_processor(config),
            model_config=config,
            generation_config=self._generation_config(),
        )

    def load(self, *, dtype: str, attn_implementation: str | dict[str, str]) -> Any:
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

        auto = AutoModelForImageTextToText if _sees(self.config()) else AutoModelForCausalLM
        return self._read(
            auto.from_pretrained,
            "weights",
            dtype=getattr(torch, dtype),
            attn_implementation=attn_implementation,
        ).eval()

    def value_head(self) -> dict[str, Any] | None:
        """Of an exported critic or reward model, or of a transformers checkpoint for sequence or
        token classification with one label, or two (the second one's logit less the first's)."""
        from trainer.ops.value_heads import saved_head

        try:
            return saved_head(lambda name: self._files((name,)).get(name))
        except ValueError as error:
            raise ConfigError(f"model.path: {self.path!r}: {error}") from error

    def save_assets(self, folder: Path) -> None:
        config = self.config()
        folder.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(folder)
        self._tokenizer().save_pretrained(folder)
        if (generation := self._generation_config()) is not None:
            generation.save_pretrained(folder)
        if (processor := self._image_processor(config)) is not None:
            save_image_processor(folder, processor, _VISION[config.model_type])
            if self.min_pixels is None and self.max_pixels is None:
                self._copy(_PROCESSOR_FILES, folder)

    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        tokenizer = self._read(AutoTokenizer.from_pretrained, "tokenizer")
        if self.chat_template is not None:
            tokenizer.chat_template = self._chat_template(self.chat_template)
        return tokenizer

    def _chat_template(self, value: str) -> str:
        if not value.endswith(".jinja"):
            return value
        if not Path(value).is_file():
            raise ConfigError(f"model.chat_template: there is no file {value!r}")
        return Path(value).read_text(encoding="utf-8")

    def _image_processor(self, config: Any) -> Any:
        """None for text models. Always the Pillow one: it needs no torchvision, and gives the same
        pixels on every machine."""
        if not _sees(config):
            return None
        if config.model_type not in _VISION:
            raise ConfigError(
                f"model.path: {self.path!r} is a vision model of type {config.model_type!r}; "
                f"supported: {', '.join(_VISION)}"
            )
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil,
        )

        processor = self._read(Qwen2VLImageProcessorPil.from_pretrained, "preprocessor_config.json")
        size = dict(processor.size)
        size["shortest_edge"] = self.min_pixels or size["shortest_edge"]
        size["longest_edge"] = self.max_pixels or size["longest_edge"]
        processor.size = type(processor.size)(**size)
        return processor

    def _generation_config(self) -> Any:
        from transformers import GenerationConfig

        try:
            revision = self.revision or "main"
            return GenerationConfig.from_pretrained(self._location(), revision=revision)
        except OSError:  # many checkpoints have none, and the tokenizer's end of text then does
            return None

    def _copy(self, names: tuple[str, ...], folder: Path) -> None:
        for name, found in self._files(names).items():
            if found.resolve() != (folder / name).resolve():
                shutil.copyfile(found, folder / name)

    def _files(self, names: tuple[str, ...]) -> dict[str, Path]:
        """Where those of the model's files are that exist."""
        from transformers.utils import cached_file

        found = {
            name: cached_file(
                self._location(),
                name,
                revision=self.revision,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
            for name in names
        }
        return {name: Path(path) for name, path in found.items() if path is not None}

    def _location(self) -> str:
        return located(self.path, "model.path")

    def _read(self, reader: Any, what: str, **options: Any) -> Any:
        try:
            return reader(
                self._location(),
                revision=self.revision,
                trust_remote_code=self.trust_remote_code,
                **options,
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"model.path: cannot read {what} of {self.path!r}: {error}"
            ) from error


def _sees(config: Any) -> bool:
    return hasattr(config, "vision_config")
