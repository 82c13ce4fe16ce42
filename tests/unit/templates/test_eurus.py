"""The seven actions, and who wins over them."""

from __future__ import annotations

from trainer.templates.eurus import Eurus

ACTIONS = ("ASSESS", "ADVANCE", "VERIFY", "SIMPLIFY", "SYNTHESIZE", "PIVOT", "OUTPUT")


def test_the_actions_and_the_box():
    system, user = Eurus().messages({"question": "1+1?"})
    assert [system["content"].count(f"[{action}]") for action in ACTIONS] == [1] * 7
    assert "Next action: [" in system["content"]
    assert user["content"].startswith("1+1?")
    assert user["content"].endswith("\\boxed{}.")


def test_a_row_with_its_own_system_prompt_keeps_it():
    row = [{"role": "system", "content": "own"}, {"role": "user", "content": "q"}]
    messages = Eurus(suffix="").messages({"messages": row})
    assert list(messages) == row
