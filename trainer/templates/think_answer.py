"""Asks for reasoning in <think> tags, then the answer in <answer> tags (DeepSeek-R1's format)."""

from __future__ import annotations

from trainer.templates.base import Template


class ThinkAnswer(Template):
    system: str | None = (
        "You first think about the question, then give the answer. The reasoning is enclosed in "
        "<think> </think> tags and the answer in <answer> </answer> tags, like this: "
        "<think>reasoning here</think><answer>answer here</answer>"
    )
    """System prompt; null leaves it out. A row's own system message wins."""
