"""The question as it is."""

from __future__ import annotations

from trainer.templates.base import Template


class Plain(Template):
    """No system prompt unless `system` gives one."""
