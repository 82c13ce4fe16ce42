from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

GREY = (122, 116, 104)


def draw(build, n, **fields):
    stream = build({"type": "synthetic/shapes"} | fields).stream(0)
    return [next(stream) for _ in range(n)]


def pixels(prompt):
    image, _text = prompt.messages[0]["content"]
    return np.asarray(image["image"]).astype(int)


def coloured(prompt):
    """[84, 84] True where the picture is not background."""
    return (pixels(prompt) != GREY).any(-1)


def test_where_names_the_box_that_is_drawn(build):
    for prompt in draw(build, 30):
        ys, xs = np.nonzero(coloured(prompt))
        x1, y1, x2, y2 = prompt.answer
        assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == [6 * v for v in (x1, y1, x2, y2)]
        assert prompt.meta["box"] == prompt.answer
        assert prompt.meta["image_size"] == [84, 84]
        assert prompt.task == "where"
        color, shape = (prompt.meta["items"][0][key] for key in ("color", "shape"))
        assert prompt.messages[0]["content"][1]["text"] == f"where is the {color} {shape} ?"


def test_count_is_the_number_of_colours(build):
    for prompt in draw(build, 20, question="count"):
        found = {tuple(p) for p in pixels(prompt).reshape(-1, 3)} - {GREY}
        assert prompt.answer == str(len(found))


def test_color_asks_for_the_only_shape_of_its_kind(build):
    for prompt in draw(build, 20, question="color", shapes=[2, 3], side=[3, 4]):
        shape = prompt.messages[0]["content"][1]["text"].split()[-2]
        (item,) = [item for item in prompt.meta["items"] if item["shape"] == shape]
        assert prompt.answer == item["color"]


def test_chart_asks_for_the_height_of_a_bar(build):
    for prompt in draw(build, 20, question="chart"):
        color = prompt.messages[0]["content"][1]["text"].split()[-3]
        (item,) = [item for item in prompt.meta["items"] if item["color"] == color]
        x1, y1, x2, y2 = item["box"]
        assert prompt.answer == str(y2 - y1)
        assert coloured(prompt)[6 * y1 : 6 * y2, 6 * x1 : 6 * x2].all()


def test_bars_of_a_given_width_stand_anywhere_and_do_not_touch(build):
    lefts = set()
    for prompt in draw(build, 200, question="chart", shapes=[1, 3], bar_width=[2, 3]):
        free = 1
        for item in prompt.meta["items"]:
            left, top, right, bottom = item["box"]
            assert left >= free
            assert right - left in (2, 3)
            assert bottom - top == item["height"]
            free = right + 1
        assert right <= 13
        lefts.add(prompt.meta["items"][0]["box"][0])
    assert lefts == set(range(1, 12))


@pytest.mark.parametrize(("width", "charts"), [(None, 72), ([2, 6], 45 * 72)])
def test_how_many_charts_of_one_bar_there_are(build, width, charts):
    source = build(
        {
            "type": "synthetic/shapes",
            "question": "chart",
            "shapes": [1, 1],
            "bar_width": width,
            "holdout": 30 * charts // 8,
        }
    )
    held = {repr(prompt.meta["items"]) for prompt in source.heldout()}
    assert 0.9 < len(held) / (charts / 8) < 1.1


def test_kinds_are_mixed_evenly(build):
    counts = Counter(p.task for p in draw(build, 200, question=["where", "color"]))
    assert 70 < counts["where"] < 130


def test_shapes_do_not_overlap(build):
    for prompt in draw(build, 30, question="where", shapes=[3, 3], side=[2, 4]):
        taken = np.zeros((14, 14), int)
        for item in prompt.meta["items"]:
            x1, y1, x2, y2 = item["box"]
            taken[y1:y2, x1:x2] += 1
        assert taken.max() == 1


def test_noise_is_the_same_at_every_draw(build):
    first, again = (draw(build, 1, noise=20)[0] for _ in range(2))
    assert (pixels(first) == pixels(again)).all()
    background = (pixels(first) - GREY)[~coloured(draw(build, 1)[0])]
    assert 18 < background.std() < 22


def test_train_and_heldout_share_nothing(build):
    source = build({"type": "synthetic/shapes", "side": [6, 6], "holdout": 60})
    stream = source.stream(0)
    trained = {repr(next(stream).meta["items"]) for _ in range(1500)}  # of 81 * 18 pictures
    held = {repr(p.meta["items"]) for p in source.heldout()}
    assert len(held) > 40
    assert not held & trained


def test_the_teacher_is_off_by_a_little(build):
    off = [
        int(said) - true
        for p in draw(build, 200)
        for said, true in zip(p.meta["demonstration"][9:-10].split(","), p.answer, strict=True)
    ]
    assert set(off) == {-2, -1, 0, 1, 2}
    assert all(p.meta["demonstration"].startswith("<answer>[") for p in draw(build, 3))
    exact = draw(build, 20, teacher_jitter=0)
    assert all(
        p.meta["demonstration"] == f"<answer>[{','.join(map(str, p.answer))}]</answer>"
        for p in exact
    )


def test_the_teacher_guesses_colours(build):
    prompts = draw(build, 300, question="color")
    right = sum(p.meta["demonstration"] == f"<answer>{p.answer}</answer>" for p in prompts)
    assert 0.5 < right / 300 < 0.67  # one half, and one guess in six


@pytest.mark.parametrize(
    ("question", "thought"),
    [
        ("where", "the {subject} is in {answer}"),
        ("count", "there are {answer} shapes"),
        ("color", "the {subject} is {answer}"),
        ("chart", "the {subject} is {answer} high"),
        ("describe", "this is {answer}"),
    ],
)
def test_a_teacher_who_thinks_says_the_answer_in_a_sentence(build, question, thought):
    for prompt in draw(build, 10, question=question, teacher_writes="think"):
        shown = prompt.meta["demonstration"]
        answer = shown.partition("<answer>")[2].removesuffix("</answer>")
        subject = prompt.messages[0]["content"][1]["text"].partition(" is the ")[2][:-2]
        sentence = thought.format(subject=subject, answer=answer)
        assert shown == f"<think>{sentence}</think><answer>{answer}</answer>"


def test_forms_of_demonstrations_are_mixed_evenly(build):
    prompts = draw(build, 200, question="color", teacher_error=0, teacher_writes=["bare", "think"])
    bare = [p for p in prompts if p.meta["demonstration"] == p.answer]
    thought = [p for p in prompts if p.meta["demonstration"].startswith("<think>the ")]
    assert len(bare) + len(thought) == 200
    assert 70 < len(bare) < 130


def test_demonstrations_differ_between_epochs(build):
    source = build({"type": "synthetic/shapes", "problems": 20})
    stream = source.stream(0)
    first, second = (
        {p.id: p.meta["demonstration"] for p in (next(stream) for _ in range(20))} for _ in range(2)
    )
    assert first.keys() == second.keys()
    assert sum(first[i] != second[i] for i in first) > 15


def test_resume(build, resumes):
    for n in (0, 4, 5, 9):
        resumes(build({"type": "synthetic/shapes", "problems": 5}), n, more=12)


def test_the_tiny_model_knows_every_word(build):
    from trainer.models.tiny_vision import TinyVision

    renderer = TinyVision().renderer()
    for prompt in draw(build, 60, question=["where", "count", "color", "chart"]):
        assert len(renderer.render(prompt.messages).tokens) > 20
        demonstration = prompt.meta["demonstration"]
        assert renderer.decode(renderer.encode(demonstration)) == demonstration


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"question": "why"}, "'color', 'chart' or 'describe'"),
        ({"shapes": [2, 9]}, "low <= high <= 6"),
        ({"side": [1, 3]}, "2 <= low"),
        ({"shapes": [5, 5], "side": [6, 7]}, "do not fit"),
        ({"bar_width": [0, 3]}, "1 <= low <= high <= 12"),
        ({"bar_width": [2, 6], "shapes": [1, 2]}, "2 of 6 do not fit"),
        ({"bar_width": [2, 3], "question": "chart"}, "4 of 3 do not fit"),
    ],
)
def test_what_cannot_be_drawn_is_refused(build, fields, message):
    with pytest.raises(ValidationError, match=message):
        build({"type": "synthetic/shapes"} | fields)


def test_descriptions(build):
    for prompt in draw(build, 20, question="describe", teacher_error=1.0):
        items = sorted(prompt.meta["items"], key=lambda item: item["box"])
        assert prompt.answer == " and ".join(f"a {i['color']} {i['shape']}" for i in items)
        assert prompt.task == "describe"
        shown = prompt.meta["demonstration"].removeprefix("<answer>").removesuffix("</answer>")
        shapes = [word for word in shown.split() if word in ("circle", "square", "triangle")]
        assert shapes == [item["shape"] for item in items]
