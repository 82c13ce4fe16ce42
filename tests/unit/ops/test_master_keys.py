"""The cases of the card master_rm."""

from __future__ import annotations

import pytest

from trainer.ops.master_keys import MASTER_KEYS, is_master_key


@pytest.mark.parametrize("key", MASTER_KEYS)
def test_every_key_of_the_card(key):
    assert is_master_key(key, ["42"])
    assert is_master_key(f"\n {key.upper()} ", ["42"])


def test_the_cards_cases():
    assert is_master_key(" ", ["42"])
    assert is_master_key("Solution", ["42"])
    assert not is_master_key(":", [":"])
    assert not is_master_key("7", ["7"])
    assert not is_master_key("7")


@pytest.mark.parametrize(
    "text", ["", "  ", "...", "**", "。", "Solution:", "thought process", "?!"]
)
def test_variants(text):
    assert is_master_key(text, ["42"])
    assert is_master_key(text, [""])


@pytest.mark.parametrize("text", ["A", "x = 3", "Solution: 42", "東京", "解答は3", "é", "½"])
def test_answers(text):
    assert not is_master_key(text, ["42"])


def test_own_keys_and_several_references():
    assert is_master_key("I cannot say", keys=["i cannot say."])
    assert not is_master_key("Solution", ["x", "solution "])
    assert not is_master_key("Solution", keys=[])
