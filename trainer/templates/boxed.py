r"""Asks for the final answer inside \boxed{}, as mathematics data sets are usually scored."""

from __future__ import annotations

from trainer.templates.base import Template


class Boxed(Template):
    system: str | None = "Reason step by step, and put your final answer within \\boxed{}."
    """System prompt; null leaves it out. A row's own system message wins."""
