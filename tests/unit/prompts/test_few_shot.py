from __future__ import annotations

from collections import Counter

import pytest
from pydantic import TypeAdapter, ValidationError

from trainer.errors import DataError
from trainer.prompts.base import Prompts

SHAPES = {"type": "synthetic/shapes", "question": "color", "problems": 300, "holdout": 16}


def make(**fields):
    spec = {"type": "few_shot", "source": SHAPES} | fields
    return TypeAdapter(Prompts).validate_python(spec)


def test_so_many_of_every_class_and_the_same_every_epoch():
    source = make(shots=2)
    items = source.items()
    stream = source.stream(7)
    epochs = [[next(stream) for _ in items] for _ in range(2)]
    assert Counter(p.answer for p in epochs[0]) == dict.fromkeys(
        ("red", "green", "blue", "yellow", "purple", "orange"), 2
    )
    assert {p.id for p in epochs[0]} == {p.id for p in epochs[1]}
    assert [p.serial for epoch in epochs for p in epoch] == list(range(24))
    assert items == make(shots=2).items() != make(shots=2, seed=1).items()
    assert len(make(by=None, shots=5).items()) == 5


def test_heldout_is_the_sources():
    source = make(shots=1)
    plain = TypeAdapter(Prompts).validate_python(SHAPES)
    assert [p.id for p in source.heldout(4)] == [p.id for p in plain.heldout(4)]
    assert source.columns() == plain.columns()
    assert len(source.heldout()) == 16


def test_state_comes_back():
    source = make(shots=1)
    stream = source.stream(3)
    for _ in range(8):
        next(stream)
    state = stream.state_dict()
    expected = [next(stream).id for _ in range(5)]
    again = source.stream(3)
    again.load_state_dict(state)
    assert [next(again).id for _ in range(5)] == expected
    with pytest.raises(DataError, match="6 training rows"):
        make(shots=2).stream(3).load_state_dict(state)


def test_what_it_refuses():
    with pytest.raises(DataError, match="no column 'kind_of'"):
        make(by="kind_of").items()
    with pytest.raises(DataError, match="looks at every row"):
        make(source=SHAPES | {"problems": 2**31}).items()
    with pytest.raises(ValidationError, match="needs a source of rows"):
        make(source={"type": "mixture", "members": {"a": {"prompts": SHAPES}}})
