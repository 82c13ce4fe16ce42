from __future__ import annotations

from trainer.plugin import find
from trainer.templates.base import Template


def test_it_asks_for_a_box():
    system, user = find(Template, "boxed")().messages({"question": "3+4="})
    assert system == {
        "role": "system",
        "content": "Reason step by step, and put your final answer within \\boxed{}.",
    }
    assert user["content"] == "3+4="


def test_the_text_can_be_replaced():
    template = find(Template, "boxed")(system="Box it.")
    assert template.messages({"question": "q"})[0]["content"] == "Box it."
