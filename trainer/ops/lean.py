"""Groups without pictures and tensors: small enough to be logged and sent between processes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trainer.types import Prompt, Rollout


def lean_rollout(rollout: Rollout) -> Rollout:
    """Without model inputs (pixel values)."""
    if not any(span.inputs for span in rollout.spans):
        return rollout
    spans = [replace(span, inputs={}) if span.inputs else span for span in rollout.spans]
    return replace(rollout, spans=spans)


def lean_prompt(prompt: Prompt) -> Prompt:
    """Image parts keep only `size`, (width, height); images in the data row are left out."""
    meta = {name: value for name, value in prompt.meta.items() if not _is_image(value)}
    messages = tuple(map(_without_images, prompt.messages))
    return replace(prompt, messages=messages, meta=meta)


def _without_images(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, str):
        return message
    return message | {"content": [_without_image(part) for part in content or ()]}


def _without_image(part: Any) -> Any:
    if not isinstance(part, dict) or "image" not in part:
        return part
    rest = {name: value for name, value in part.items() if name != "image"}
    size = getattr(part["image"], "size", None)
    return rest | ({"size": tuple(size)} if isinstance(size, tuple | list) else {})


def _is_image(value: Any) -> bool:
    """Pictures as PIL, bytes, or the {"bytes": ...} of the `datasets` library."""
    if isinstance(value, list | tuple):
        return bool(value) and all(_is_image(item) for item in value)
    if isinstance(value, dict):
        return isinstance(value.get("bytes"), bytes)
    return isinstance(value, bytes) or type(value).__module__.partition(".")[0] == "PIL"
