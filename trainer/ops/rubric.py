"""A judge's question from its template: what is filled in stays data."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer.ops.text import text_of

if TYPE_CHECKING:
    from PIL import Image

_FIELD = re.compile(r"\{\{|\}\}|\{([a-z_][a-z0-9_.]*)\}")
_TAG = re.compile(r"</?[A-Za-z][\w-]*>")


def fields_of(template: str) -> list[str]:
    """`{names}` in a template, in order. `{{` and `}}` are braces; so are those around anything
    that is no lower-case name."""
    return list(dict.fromkeys(m.group(1) for m in _FIELD.finditer(template) if m.group(1)))


def check_fields(template: str, known: Sequence[str], required: Sequence[str] = ()) -> str:
    """The template; ValueError for a field that nothing fills, or one that must be there."""
    found = fields_of(template)
    for name in found:
        if name not in known and not name.startswith("meta."):
            raise ValueError(
                f"{{{name}}} is no field; known: {', '.join(known)}, meta.<column>; write braces "
                f"that are no field as {{{{{name}}}}}"
            )
    for name in required:
        if name not in found:
            raise ValueError(
                f"{{{name}}} is missing: without it the judge does not see what it judges"
            )
    return template


def fill(template: str, values: Mapping[str, str]) -> str:
    """Each field replaced once. A tag that the template itself uses is disarmed in what is filled
    in, so no answer can close its own frame or open another one's."""
    own = tags_of(template)

    def one(match: re.Match[str]) -> str:
        name = match.group(1)
        return match.group()[0] if name is None else disarmed(values[name], own)

    return _FIELD.sub(one, template)


def tags_of(text: str) -> set[str]:
    """`<name>` and `</name>`, as they are written."""
    return set(_TAG.findall(text))


def disarmed(text: str, tags: Container[str]) -> str:
    """`&lt;` in place of `<` where a text has one of `tags`."""

    def one(match: re.Match[str]) -> str:
        tag = match.group()
        return f"&lt;{tag[1:]}" if tag in tags else tag

    return _TAG.sub(one, text)


def conversation(messages: Iterable[Mapping[str, Any]]) -> str:
    """`user: ...` lines, a blank line between the turns."""
    return "\n\n".join(f"{m.get('role', '')}: {text_of(m.get('content'))}" for m in messages)


def images_of(messages: Iterable[Mapping[str, Any]]) -> list[Image.Image]:
    """The images of a conversation, in order."""
    return [
        part["image"]
        for message in messages
        if isinstance(message.get("content"), list | tuple)
        for part in message["content"]
        if isinstance(part, dict) and part.get("type") == "image" and "image" in part
    ]


def last_image(messages: Iterable[Mapping[str, Any]]) -> Image.Image | None:
    """What an answer draws is compared with it."""
    return next(reversed(images_of(messages)), None)


def shown(content: Any) -> Any:
    """A message's content as servers take it: images as data."""
    if not isinstance(content, list | tuple):
        return content
    return [image_part(part["image"]) if "image" in part else dict(part) for part in content]


def image_part(image: Image.Image) -> dict[str, Any]:
    """A part of a chat message with the image inside, as PNG."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
