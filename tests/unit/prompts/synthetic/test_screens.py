from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

RED, PAPER, BAR = (220, 40, 40), (245, 245, 242), (58, 56, 54)


def draw(build, n, **fields):
    stream = build({"type": "synthetic/screens"} | fields).stream(0)
    return [next(stream) for _ in range(n)]


def pixels(prompt):
    image, _text = prompt.messages[0]["content"]
    return np.asarray(image["image"]).astype(int)


def asked(prompt):
    """(colour, kind) of `where is the red square ?`."""
    return tuple(prompt.messages[0]["content"][1]["text"].split()[3:5])


def test_the_box_is_that_of_the_control_that_is_asked_for(build):
    for prompt in draw(build, 40):
        (item,) = [i for i in prompt.meta["items"] if (i["color"], i["kind"]) == asked(prompt)]
        assert prompt.answer == prompt.meta["box"] == item["box"]
        assert (prompt.task, prompt.meta["image_size"]) == ("click", [84, 84])


def test_a_control_fills_its_box_and_nothing_else_has_its_colour(build):
    reds = [p for p in draw(build, 120) if asked(p)[0] == "red"]
    assert len(reds) > 10
    for prompt in reds:
        ys, xs = np.nonzero((pixels(prompt) == RED).all(-1))
        x1, y1, x2, y2 = (6 * v for v in prompt.answer)
        assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == [x1, y1, x2, y2]
        inside = pixels(prompt)[y1:y2, x1:x2].reshape(-1, 3)
        white = (inside == PAPER).all(-1).mean()
        assert white > 0.1 if asked(prompt)[1] == "bar" else white == 0


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("square", {(1, 1), (2, 2)}),
        ("circle", {(1, 1), (2, 2)}),
        ("bar", {(2, 1), (3, 1), (4, 2), (5, 2), (6, 2)}),
    ],
)
def test_sizes(build, kind, sizes):
    boxes = [p.answer for p in draw(build, 90, controls=kind)]
    assert {(x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes} == sizes


def test_controls_and_lines_lie_apart_below_the_title_bar(build):
    for prompt in draw(build, 40, number=[4, 4], lines=[4, 4]):
        taken = np.zeros((14, 14), int)
        for box in [*(i["box"] for i in prompt.meta["items"]), *prompt.meta["lines"]]:
            x1, y1, x2, y2 = box
            taken[y1:y2, x1:x2] += 1
        assert taken.max() == 1
        assert not taken[0].any()
        assert (pixels(prompt)[:6, :60] == BAR).all()


def test_the_teacher_moves_the_box_but_keeps_its_size(build):
    moves = Counter()
    for prompt in draw(build, 200, teacher_jitter=1):
        said = [int(v) for v in prompt.meta["demonstration"][9:-10].split(",")]
        left, top, right, bottom = (a - b for a, b in zip(said, prompt.answer, strict=True))
        assert (left, top) == (right, bottom)
        assert min(said) >= 0
        assert max(said) <= 14
        moves[left, top] += 1
    assert set(moves) == {(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)}
    (exact,) = draw(build, 1, teacher_jitter=0)
    assert exact.meta["demonstration"] == f"<answer>[{','.join(map(str, exact.answer))}]</answer>"


def test_train_and_heldout_share_nothing(build):
    source = build({"type": "synthetic/screens", "number": [1, 1], "lines": [0, 0], "holdout": 60})
    stream = source.stream(0)
    trained = {repr(next(stream).meta["items"]) for _ in range(1500)}
    held = {repr(p.meta["items"]) for p in source.heldout()}
    assert len(held) > 40
    assert not held & trained


def test_resume(build, resumes):
    for n in (0, 4, 5, 9):
        resumes(build({"type": "synthetic/screens", "problems": 5}), n, more=12)


def test_the_tiny_model_knows_every_word(build):
    from trainer.models.tiny_vision import TinyVision

    renderer = TinyVision().renderer()
    for prompt in draw(build, 60):
        assert len(renderer.render(prompt.messages).tokens) > 20
        demonstration = prompt.meta["demonstration"]
        assert renderer.decode(renderer.encode(demonstration)) == demonstration


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"controls": "slider"}, "'square', 'circle' or 'bar'"),
        ({"side": [0, 2]}, "side: must be"),
        ({"number": [0, 2]}, "number: must be"),
        ({"lines": [3, 9]}, "lines: must be"),
    ],
)
def test_what_cannot_be_drawn_is_refused(build, fields, message):
    with pytest.raises(ValidationError, match=message):
        build({"type": "synthetic/screens"} | fields)
