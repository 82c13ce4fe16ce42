"""text/anls and text/edit_distance."""

from __future__ import annotations

import math

import pytest


@pytest.mark.parametrize(
    ("answer", "gold", "value"),
    [
        ("Inv0ice 2021", ["invoice 2021", "2021"], 0.916667),
        ("march 3", ["March 3, 2020"], 0.538462),
        ("abcd", ["abxy"], 0.5),
        ("", ["x"], 0),
        ("", [""], 1),
        ("The total is 42", "42", 0),
        ("1,000", "7,000", 0.8),
    ],
)
def test_anls(values, answer, gold, value):
    found = values("text/anls", [f"<answer>{answer}</answer>"], answer=gold)
    assert found == [pytest.approx(value, abs=1e-6)]


def test_anls_threshold(values):
    assert values({"type": "text/anls", "threshold": 0.51}, ["abcd"], answer="abxy") == [0.0]


@pytest.mark.parametrize(
    ("fields", "answer", "gold", "value"),
    [
        ({"kind": "cer"}, "Tota1: 42 US", "Total: 42 USD", 0.846154),
        ({}, "Tota1: 42 US", "Total: 42 USD", 0.846154),
        ({"kind": "wer"}, "Tota1: 42 US", "Total: 42 USD", 0.333333),
        ({"kind": "exp_wer"}, "Tota1: 42 US", "Total: 42 USD", math.exp(-2 / 3)),
        ({"kind": "cer"}, "abcabcabcabc", "abc", 0),
        ({"kind": "cer", "clip": False}, "abcabcabcabc", "abc", -2),
        ({}, "abcabcabcabc", "abc", 0.25),
        ({"kind": "cer"}, "", "", 1),
        ({}, "", "x", 0),
        ({"bonus": 0.2}, "same", " same ", 1.2),
        ({"normalise": ["case", "quotes"]}, "It\u2019s", "it's", 1),
        ({"normalise": ["nfkc"]}, "\ufb01t", "fit", 1),
        ({"normalise": ["fence", "strip"]}, "```md\n# A\n```", "# A", 1),
        ({}, "a" * 1000, "abc", 0),
    ],
)
def test_edit_distance(values, fields, answer, gold, value):
    spec = {"type": "text/edit_distance"} | fields
    found = values(spec, [f"<answer>{answer}</answer>"], answer=gold)
    assert found == [pytest.approx(value, abs=1e-6)]


def test_the_best_of_several(values):
    assert values("text/edit_distance", ["abc"], answer=["xyz", "abd"]) == [pytest.approx(2 / 3)]
