"""What every source of small pictures keeps to: known words, a fair split, resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainer.models.pretrained import Pretrained

START = Path(__file__).parents[4] / "configs" / "model" / "tiny_tasks"
NAMES = ("reasoning", "clips", "changes", "pages", "captions", "codes", "transit")
EVERY = {
    "reasoning": {"choices": 2, "layout": "description"},
    "transit": {"question": ["TorF1", "Counting2", "Counting1", "planning"]},
}
SOURCES = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def source(build):
    def make(name, **fields):
        return build({"type": f"synthetic/{name}"} | EVERY.get(name, {}) | fields)

    return make


def draw(source, n):
    stream = source.stream(0)
    return [next(stream) for _ in range(n)]


@SOURCES
def test_the_start_knows_every_word(source, name):
    renderer = Pretrained(path=str(START)).renderer()
    for prompt in draw(source(name), 60):
        rendered = renderer.render(prompt.messages)
        assert "<unk>" not in renderer.decode(rendered.tokens)
        demonstration = prompt.meta["demonstration"]
        assert renderer.decode(renderer.encode(demonstration)) == demonstration


@SOURCES
def test_train_and_heldout_share_nothing_and_it_resumes(source, name, resumes):
    made = source(name, holdout=40, problems=300)
    trained = {repr(made.content(prompt.meta)) for prompt in draw(made, 300)}
    held = {repr(made.content(prompt.meta)) for prompt in made.heldout()}
    assert len(held) > 20
    assert not held & trained
    for n in (0, 3, 7):
        resumes(source(name, problems=5), n, more=12)


@SOURCES
def test_demonstrations_differ_between_epochs(source, name):
    stream = source(name, problems=40).stream(0)
    first, second = (
        {p.id: p.meta["demonstration"] for p in (next(stream) for _ in range(40))} for _ in range(2)
    )
    assert first.keys() == second.keys()
    assert sum(first[i] != second[i] for i in first) > 5


@SOURCES
def test_rows_that_differ_in_what_is_drawn_are_drawn_differently(source, name):
    """No two of 40 problems show the same picture and ask the same with another answer."""
    seen: dict[tuple, set[str]] = {}
    for prompt in draw(source(name), 40):
        parts = prompt.messages[0]["content"]
        key = tuple(part.get("text") or np.asarray(part["image"]).tobytes() for part in parts)
        seen.setdefault(key, set()).add(repr(prompt.answer))
    assert all(len(answers) == 1 for answers in seen.values())
