from __future__ import annotations

import pytest
from pydantic import ValidationError


def draw(build, n, **fields):
    stream = build({"type": "synthetic/reasoning"} | fields).stream(0)
    return [next(stream) for _ in range(n)]


def text(prompt):
    content = prompt.messages[0]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def test_it_asks_for_the_colour_of_the_first_fact(build):
    for prompt in draw(build, 30):
        color, shape = prompt.meta["facts"][0].split()
        assert text(prompt) == f"what color is the {shape} ?"
        assert prompt.answer == color
        assert len({fact.split()[1] for fact in prompt.meta["facts"]}) == 2


def test_choices(build):
    for prompt in draw(build, 30, labels=["A", "B", "C"]):
        meta = prompt.meta
        assert len(set(meta["options"])) == 3
        assert meta["options"]["ABC".index(prompt.answer)] == meta["facts"][0].split()[0]
        assert text(prompt).endswith(
            " ".join(f"{a} {b}" for a, b in zip("ABC", meta["options"], strict=True))
        )
    with pytest.raises(ValidationError, match="none, or 2 to 6"):
        draw(build, 1, labels=["A"])


def test_a_careful_teacher_says_the_facts_and_the_answer(build):
    careful = {"careless": 0, "astray": 0}
    for prompt in draw(build, 10, thinks="asked", **careful):
        said = f"<think>{prompt.meta['facts'][0]}</think><answer>{prompt.answer}</answer>"
        assert prompt.meta["demonstration"] == said
    for prompt in draw(build, 10, layout="description", **careful):
        assert text(prompt).startswith("describe : what color")
        a, b = prompt.meta["facts"]
        shape = a.split()[1]
        rest = f"</description><think>{shape}</think>\\boxed{{{prompt.answer}}}"
        assert prompt.meta["demonstration"] in [
            f"<description>{x} and {y}{rest}" for x, y in ((a, b), (b, a))
        ]


def test_how_often_the_teacher_fails(build):
    prompts = draw(build, 400, careless=0.5, astray=0, thinks="asked")
    thought = [p.meta["demonstration"].split("</think>")[0][7:] for p in prompts]
    right = sum(said == p.meta["facts"][0] for said, p in zip(thought, prompts, strict=True))
    assert 0.5 < right / 400 < 0.67  # one half, and one guess in six
    follows = sum(
        said.split()[0] == p.meta["demonstration"].split("<answer>")[1][:-9]
        for said, p in zip(thought, prompts, strict=True)
    )
    assert follows == 400
    short = draw(build, 200, omits=0.5)
    assert 70 < sum(" and " not in p.meta["demonstration"] for p in short) < 130


def test_without_the_picture_the_facts_are_told(build):
    for prompt in draw(build, 5, picture=False):
        a, b = prompt.meta["facts"]
        assert text(prompt) == f"{a} and {b} what color is the {a.split()[1]} ?"
        assert isinstance(prompt.messages[0]["content"], str)
