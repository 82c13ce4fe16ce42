"""Contract of `template:`: a data row becomes chat messages (system prompt, answer format)."""

from __future__ import annotations

from typing import Any, ClassVar

from trainer.plugin import Plugin


class Template(Plugin):
    family: ClassVar[str] = "trainer.templates"

    def messages(self, row: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        """`row` holds `question` (text) or `messages`, and `images` (list of PIL), all already
        loaded. Returns chat messages as in `Prompt.messages`."""
        raise NotImplementedError
