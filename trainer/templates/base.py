"""Contract of `template:`: a data row becomes chat messages (system prompt, answer format)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from trainer.errors import DataError
from trainer.plugin import Plugin

_MARK = "<image>"


class Template(Plugin):
    """The fields serve every template; one that only needs another system prompt sets its default
    and nothing else."""

    family: ClassVar[str] = "trainer.templates"

    system: str | None = None
    """System prompt; null leaves it out. A row's own system message wins."""
    suffix: str = ""
    """Added to the end of the last user turn, for instance "\\nAnswer with a number."."""
    images: Literal["first", "last"] = "first"
    """Images before or after the text of the first user turn. Rows whose messages have image
    parts, or whose text has one `<image>` per image, say themselves where each goes."""

    def messages(self, row: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        """`row` holds `question` (text) or `messages`, and `images` (list of PIL), all already
        loaded. Returns chat messages as in `Prompt.messages`. Raises DataError if image parts and
        images do not match."""
        given = row.get("messages") or [{"role": "user", "content": row["question"]}]
        turns = [dict(message) for message in given]
        self._place(turns, list(row.get("images") or ()))
        users = [turn for turn in turns if turn["role"] == "user"]
        if self.suffix and users:
            users[-1]["content"] = _appended(users[-1]["content"], self.suffix)
        if self.system is not None and turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": self.system})
        return tuple(turns)

    def _place(self, turns: list[dict[str, Any]], images: list[Any]) -> None:
        if images:
            for turn in turns:
                turn["content"] = _split(turn["content"])
        slots = sum(_is_slot(part) for turn in turns for part in _parts(turn))
        if slots:
            if slots != len(images):
                raise DataError(f"{slots} image part(s) in its messages, {len(images)} image(s)")
            rest = iter(images)
            for turn in turns:
                if _parts(turn):
                    turn["content"] = [
                        {"type": "image", "image": next(rest)} if _is_slot(part) else part
                        for part in _parts(turn)
                    ]
        elif images:
            turn = next((turn for turn in turns if turn["role"] == "user"), turns[0])
            text = _parts(turn) or [{"type": "text", "text": turn["content"]}]
            pictures = [{"type": "image", "image": image} for image in images]
            turn["content"] = [*pictures, *text] if self.images == "first" else [*text, *pictures]


def _split(content: Any) -> Any:
    """Text with `<image>` marks as parts, an empty image part for each mark."""
    if not isinstance(content, str) or _MARK not in content:
        return content
    parts: list[dict[str, Any]] = []
    for i, text in enumerate(content.split(_MARK)):
        parts += [{"type": "image"}] if i else []
        parts += [{"type": "text", "text": text}] if text else []
    return parts


def _parts(turn: dict[str, Any]) -> list[dict[str, Any]]:
    return [] if isinstance(turn["content"], str) else list(turn["content"])


def _is_slot(part: dict[str, Any]) -> bool:
    return part["type"] == "image" and part.get("image") is None


def _appended(content: Any, text: str) -> Any:
    if isinstance(content, str):
        return content + text
    return [*content, {"type": "text", "text": text}]
