"""Messages to token ids and image tensors, and back. The only code that knows a chat template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from trainer.errors import ConfigError, DataError

_SMALL_VOCABULARY = 512
_PLACEHOLDERS = (
    "image_token_id",
    "video_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
)
# A reply as a template may see it, without and with reasoning: some templates treat them apart.
_REPLIES = ("0", "<think>\n0\n</think>\n\n0")


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids with image placeholders already expanded, and the tensors that fill them."""

    tokens: list[int]
    inputs: dict[str, Any] = field(default_factory=dict)
    """{} for text; else pixel_values f[patches, d], image_grid_thw i[images, 3]."""
    text: str = ""


class Renderer:
    """Wraps a tokenizer and, for vision models, an image processor of the Qwen2-VL family
    (Qwen2-VL, Qwen2.5-VL, Qwen3-VL)."""

    def __init__(
        self,
        tokenizer: Any,
        image_processor: Any = None,
        *,
        model_config: Any = None,
        generation_config: Any = None,
    ):
        """`model_config` gives the placeholder ids, `generation_config` more end-of-turn ids;
        both are transformers' objects."""
        if not tokenizer.chat_template:
            raise ConfigError(
                "the model's tokenizer has no chat template; set model.chat_template to a Jinja "
                "template, or start from an instruction-tuned model"
            )
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self._model_config, self._generation_config = model_config, generation_config
        # Tokenizers made in code know few words, and an unknown one must not vanish in silence.
        self._lossy = len(tokenizer) < _SMALL_VOCABULARY

    def render(
        self, messages: Sequence[dict[str, Any]], *, generate: bool = True, name: str = ""
    ) -> Rendered:
        """The prompt of `messages`; `generate` appends the assistant's opening.

        `name` says which sample it is in errors. Raises DataError if images and placeholders do
        not match, if a part is neither text nor image, or if the model sees no images.
        """
        name = name or _excerpt(messages)
        return self._fill(self._template(messages, generate), _images(messages, name), name)

    def render_more(self, messages: Sequence[dict[str, Any]], *, closed: bool = True) -> Rendered:
        """Only the tokens that `messages` add to a conversation whose last turn was sampled.

        The sampled turn ends with its end-of-turn token; whatever the template puts after that
        token (often a newline) belongs to the answer given here. `closed=False`: the turn was cut
        before that token, so it is added as well. Raises ConfigError if the template rewrites
        earlier turns (drops reasoning, say): then no suffix is right.
        """
        name = _excerpt(messages)
        text = self._suffix(messages)
        more = self._fill(text, _images(messages, name), name)
        if closed:
            return more
        tokens = [self.stop_ids[0], *more.tokens]
        return Rendered(tokens, more.inputs, self.tokenizer.decode(self.stop_ids[0]) + text)

    def resized_sizes(self, inputs: dict[str, Any]) -> list[tuple[int, int]]:
        """(height, width) in pixels of each image as the model sees it, after resizing."""
        if not inputs:
            return []
        patch = self.image_processor.patch_size
        return [(h * patch, w * patch) for _, h, w in inputs["image_grid_thw"].tolist()]

    def encode(self, text: str) -> list[int]:
        """Plain text, no template, special tokens recognised. Raises DataError if a small
        tokenizer has no token for part of it."""
        tokens = self.tokenizer(text, add_special_tokens=False).input_ids
        if self._lossy and self._text(tokens) != text:
            raise DataError(
                f"the model's tokenizer cannot write {text!r}, it reads {self._text(tokens)!r}; "
                "use words and characters of its vocabulary"
            )
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """Text view; one trailing end-of-turn token is left out, other special tokens are kept."""
        if len(tokens) and tokens[-1] in self.stop_ids:
            tokens = tokens[:-1]
        return self._text(tokens)

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a turn (end of turn, end of text), the tokenizer's own first."""
        sources = (self.tokenizer, self._generation_config, self._text_config)
        found = dict.fromkeys(
            i for source in sources for i in _listed(getattr(source, "eos_token_id", None))
        )
        if not found:
            raise ConfigError("the model's tokenizer has no end-of-text token (eos_token)")
        return tuple(found)

    @cached_property
    def banned_ids(self) -> tuple[int, ...]:
        """Tokens that may never be sampled: image, video and padding placeholders."""
        found = {
            i
            for config in (self._model_config, self.tokenizer)
            for key in _PLACEHOLDERS
            for i in _listed(getattr(config, key, None))
        }
        found |= set(_listed(self.tokenizer.pad_token_id))
        return tuple(sorted(found - set(self.stop_ids)))

    @property
    def _text_config(self) -> Any:
        return self._model_config and self._model_config.get_text_config()

    def _text(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(
            list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    def _template(self, messages: Sequence[dict[str, Any]], generate: bool) -> str:
        return self.tokenizer.apply_chat_template(
            [_templated(message, self.image_processor is not None) for message in messages],
            tokenize=False,
            add_generation_prompt=generate,
        )

    def _suffix(self, messages: Sequence[dict[str, Any]]) -> str:
        stop = self._text(self.stop_ids[:1])
        for reply in _REPLIES:
            base = [{"role": "user", "content": "0"}, {"role": "assistant", "content": reply}]
            before = self._template(base, False)
            after = self._template([*base, *messages], True)
            if after.startswith(before):
                turn = before.rindex("0") + 1
                end = after.find(stop, turn, max(len(before), turn))
                return after[end + len(stop) :] if end >= 0 else after[turn:]
        raise ConfigError(
            "the chat template rewrites earlier turns when a turn is added (it does not preserve "
            f"prefixes), so a conversation cannot go on after a sampled turn; before: {before!r}, "
            f"after: {after!r}. Set model.chat_template to one that keeps earlier turns as they are"
        )

    def _fill(self, text: str, images: list[Any], name: str) -> Rendered:
        tokens = self.encode(text)
        if self.image_processor is None:
            if images:
                raise DataError(
                    f"{name}: it has {len(images)} image(s), and the model reads text only; choose "
                    "a vision model, or a data source without images"
                )
            return Rendered(tokens, {}, text)
        placeholder = self._model_config.image_token_id
        count = tokens.count(placeholder)
        if count != len(images):
            raise DataError(
                f"{name}: {count} image placeholder(s) in the rendered prompt, {len(images)} "
                "image(s); does its text hold a placeholder, or does the chat template skip images?"
            )
        if not images:
            return Rendered(tokens, {}, text)
        features = self.image_processor(images=images, return_tensors="pt")
        merged = self.image_processor.merge_size**2
        copies = iter((features["image_grid_thw"].prod(-1) // merged).tolist())
        expanded = [
            token
            for one in tokens
            for token in ([one] * next(copies) if one == placeholder else [one])
        ]
        inputs = {key: features[key] for key in ("pixel_values", "image_grid_thw")}
        return Rendered(expanded, inputs, text)


def _templated(message: dict[str, Any], vision: bool) -> dict[str, Any]:
    """The message as a chat template reads it: no pixels; plain text for models without vision."""
    content = message.get("content")
    if not isinstance(content, (list, tuple)):
        return message
    if vision:
        parts = [{"type": "image"} if part["type"] == "image" else part for part in content]
        return {**message, "content": parts}
    return {**message, "content": "".join(p["text"] for p in content if p["type"] == "text")}


def _parts(messages: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for message in messages:
        if isinstance(content := message.get("content"), (list, tuple)):
            yield from content


def _images(messages: Sequence[dict[str, Any]], name: str) -> list[Any]:
    for part in _parts(messages):
        if part.get("type") not in ("text", "image"):
            raise DataError(f"{name}: a part must be of type text or image, got {part!r:.80}")
    return [part["image"] for part in _parts(messages) if part["type"] == "image"]


def _excerpt(messages: Sequence[dict[str, Any]]) -> str:
    texts = [m["content"] for m in messages if isinstance(m.get("content"), str)]
    texts += [part["text"] for part in _parts(messages) if part.get("type") == "text"]
    return f"prompt {texts[-1][:80]!r}" if texts else "a prompt"


def _listed(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)
