from __future__ import annotations

from trainer.plugin import find
from trainer.templates.base import Template


def test_it_asks_for_both_tags():
    system, user = find(Template, "think_answer")().messages({"question": "3+4="})
    for tag in ("<think>", "</think>", "<answer>", "</answer>"):
        assert tag in system["content"]
    assert (system["role"], user) == ("system", {"role": "user", "content": "3+4="})


def test_null_leaves_the_system_prompt_out():
    template = Template.model_validate({"type": "think_answer", "system": None})
    assert [m["role"] for m in template.messages({"question": "3+4="})] == ["user"]


def test_dump_and_load_are_equal():
    template = Template.model_validate({"type": "think_answer", "suffix": "!"})
    assert Template.model_validate(template.model_dump()) == template
