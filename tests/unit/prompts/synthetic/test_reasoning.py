from __future__ import annotations

import numpy as np

from trainer.ops.drawing import COLORS


def draw(build, n, **fields):
    stream = build({"type": "synthetic/reasoning"} | fields).stream(0)
    return [next(stream) for _ in range(n)]


def text(prompt):
    content = prompt.messages[0]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def test_it_asks_for_the_colour_that_is_drawn(build):
    for prompt in draw(build, 30):
        picture = np.asarray(prompt.messages[0]["content"][0]["image"])
        color, _shape = prompt.meta["facts"]
        painted = (picture == COLORS[color]).all(-1)
        assert painted[14, 14]
        assert painted.any(0).sum() == prompt.meta["side"]
        assert text(prompt) == "what color is it ?"
        assert prompt.answer == color


def test_choices(build):
    places = []
    for prompt in draw(build, 60, choices=3):
        options = prompt.meta["options"]
        assert len(set(options)) == 3
        assert options == prompt.meta["labels"]
        assert text(prompt) == f"what color is it , {' or '.join(options)} ?"
        places.append(options.index(prompt.answer))
        said = prompt.meta["demonstration"]
        assert said.split("<answer>")[1].removesuffix("</answer>") in options
    assert set(places) == {0, 1, 2}


def test_a_careful_teacher_says_the_facts_and_the_answer(build):
    careful = {"careless": 0, "astray": 0}
    for prompt in draw(build, 10, **careful):
        facts = " ".join(prompt.meta["facts"])
        said = f"<think>{facts}</think><answer>{prompt.answer}</answer>"
        assert prompt.meta["demonstration"] == said
    for prompt in draw(build, 10, layout="description", **careful):
        facts = " ".join(prompt.meta["facts"])
        assert text(prompt) == "describe : what color is it ?"
        said = f"<description>{facts}</description><think>color</think>\\boxed{{{prompt.answer}}}"
        assert prompt.meta["demonstration"] == said


def test_how_often_the_teacher_fails(build):
    prompts = draw(build, 400, careless=0.5, astray=0, omits=0.5)
    thoughts = [p.meta["demonstration"].split("</think>")[0][7:].split() for p in prompts]
    right = sum(said[0] == p.answer for said, p in zip(thoughts, prompts, strict=True))
    assert 0.5 < right / 400 < 0.67  # one half, and one guess in six
    assert all(
        said[0] == p.meta["demonstration"].split("<answer>")[1][:-9]
        for said, p in zip(thoughts, prompts, strict=True)
    )
    assert 150 < sum(len(said) == 1 for said in thoughts) < 250


def test_without_the_picture_the_facts_are_told(build):
    for prompt in draw(build, 5, picture=False, layout="description"):
        assert text(prompt) == f"{' '.join(prompt.meta['facts'])} describe : what color is it ?"
        assert isinstance(prompt.messages[0]["content"], str)
