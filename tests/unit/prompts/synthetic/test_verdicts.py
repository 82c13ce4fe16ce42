from __future__ import annotations

import re
from collections import Counter

import pytest


def test_the_label_is_true_and_the_judge_is_careless(build):
    stream = build({"type": "synthetic/verdicts", "teacher_error": 0.3}).stream(0)
    seen, right = Counter(), 0
    for _ in range(600):
        prompt = next(stream)
        asked, shown = re.fullmatch(r"([\d+]+)=([\d/]+)\?", prompt.messages[-1]["content"]).groups()
        total = sum(map(int, asked.split("+")))
        answers = [int(text) for text in shown.split("/")]
        if prompt.task == "pointwise":
            assert prompt.answer == ("Yes" if answers == [total] else "No")
        else:
            assert prompt.task == "pairwise"
            assert sorted(answer == total for answer in answers) == [False, True]
            assert prompt.answer == "AB"[answers.index(total)]
        assert min(answers) >= 0
        said = re.fullmatch(r"<answer>(\w+)</answer>", prompt.meta["demonstration"])[1]
        assert said in (("Yes", "No") if prompt.task == "pointwise" else "AB")
        right += said == prompt.answer
        seen[prompt.answer] += 1
    assert 0.63 < right / 600 < 0.77
    assert seen["Yes"] == pytest.approx(90, abs=35)
    assert seen["No"] == pytest.approx(90, abs=35)
    assert seen["A"] == pytest.approx(210, abs=50)


def test_texts_and_split(build):
    spec = {"type": "synthetic/verdicts", "pointwise": 0, "pairwise_text": " A {first} B {second}"}
    prompt = next(build(spec).stream(0))
    assert re.fullmatch(r"\d\+\d\+\d= A \d+ B \d+", prompt.messages[-1]["content"])
    source = build({"type": "synthetic/verdicts", "terms": 2, "max_value": 3, "holdout": 4})
    stream = source.stream(0)
    trained = {str(next(stream).meta["numbers"]) for _ in range(12)}
    held = {str(prompt.meta["numbers"]) for prompt in source.heldout()}
    assert (len(trained), len(held), len(trained & held)) == (12, 4, 0)
    assert {"answer", "task"} <= source.columns()


def test_resume(build, resumes):
    resumes(build("synthetic/verdicts"), 17)
