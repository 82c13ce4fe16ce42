"""Columns by name, and values inside them."""

from __future__ import annotations

from trainer.ops.columns import has, inside

ROW = {"a": {"b": {"c": 1, "none": None}}, "a.b": 2, "text": "x"}


def test_a_dot_looks_inside():
    assert inside(ROW, "text") == "x"
    assert inside(ROW, "a.b.c") == 1
    assert inside(ROW, "a.b") == 2, "a column of that very name comes first"
    assert has(ROW, "a.b.c")
    assert has(ROW, "a.b.none")


def test_what_is_not_there():
    for name in ("b", "text.x", "a.b.d", "a.x.c"):
        assert inside(ROW, name) is None
        assert not has(ROW, name)
