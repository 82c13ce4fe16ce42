"""Messages to token ids and image tensors, and back. The only code that knows a chat template."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids with image placeholders already expanded, and the tensors that fill them."""

    tokens: list[int]
    inputs: dict[str, Any] = field(default_factory=dict)
    """{} for text; else pixel_values f[patches, d], image_grid_thw i[images, 3]."""
    text: str = ""


class Renderer:
    """Wraps a tokenizer and, for vision models, an image processor."""

    def __init__(self, tokenizer: Any, image_processor: Any = None, *, model_config: Any = None):
        raise NotImplementedError

    def render(self, messages: tuple[dict[str, Any], ...], *, generate: bool = True) -> Rendered:
        """The prompt of `messages`; `generate` appends the assistant's opening."""
        raise NotImplementedError

    def render_more(self, messages: tuple[dict[str, Any], ...]) -> Rendered:
        """Only the tokens that `messages` add to a conversation whose last turn was sampled."""
        raise NotImplementedError

    def encode(self, text: str) -> list[int]:
        """Plain text, no template, special tokens recognised."""
        raise NotImplementedError

    def decode(self, tokens: list[int]) -> str:
        """Text view; the end-of-turn token is left out, other special tokens are kept."""
        raise NotImplementedError

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a turn (end of turn, end of text)."""
        raise NotImplementedError

    @property
    def banned_ids(self) -> tuple[int, ...]:
        """Tokens that may never be sampled: image, video and padding placeholders."""
        raise NotImplementedError
