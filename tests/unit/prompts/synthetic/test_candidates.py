"""What a judge is shown to learn from, against a second way to say what is right."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from pydantic import ValidationError

from trainer.judging import Judging
from trainer.rewards.base import flatten
from trainer.types import Prompt
from trainer.yaml import load_recipe

RECIPES = Path(__file__).parents[4] / "recipes"
SPEC = {"type": "synthetic/candidates", "rubric": "{question}|{reference}|{answer}"}


def drawn(source, count, seed=0):
    stream = source.stream(seed)
    return list(islice(iter(lambda: next(stream), None), count))


def is_right(asked: str, candidate: str, right: str) -> bool:
    """It states the result and no other number; the sum itself may stand before it."""
    stated = re.findall(r"-?[0-9]+", candidate.removeprefix(asked))
    return stated == [right]


def test_the_verdict_is_true(build):
    seen: dict[str, Counter] = {}
    for prompt in drawn(build(SPEC), 4000):
        row = prompt.meta
        assert sum(row["numbers"]) == int(row["reference"])
        said = re.fullmatch(r"(.+) for (\d+): <answer>(\w+)</answer>", row["demonstration"])
        assert said is not None
        assert said.groups()[1:] == (row["reference"], prompt.answer)
        assert (said[1] == row["reference"]) == (prompt.answer == "Yes")
        if prompt.task not in ("trick", "noise", "empty"):
            stated = re.findall(r"-?[0-9]+", row["candidate"].removeprefix(row["sum"]))
            assert said[1].split() == stated
        assert (prompt.answer == "Yes") == is_right(row["sum"], row["candidate"], row["reference"])
        seen.setdefault(prompt.answer, Counter())[prompt.task] += 1
    assert seen["Yes"].keys() == {"right", "dressed"}
    assert len(seen["No"]) == 8
    assert min(seen["No"].values()) > 40
    assert 0.46 < seen["Yes"].total() / 4000 < 0.54


def test_near_misses_are_near_and_hedges_hold_the_right_one(build):
    for prompt in drawn(build(SPEC | {"right": 0.0}), 2000):
        candidate, right = prompt.meta["candidate"], prompt.meta["reference"]
        if prompt.task == "near":
            assert abs(int(candidate) - int(right)) in (1, 2, 10)
        elif prompt.task == "hedged":
            assert right in re.findall(r"[0-9]+", candidate)
            assert len(re.findall(r"[0-9]+", candidate)) > 1
        elif prompt.task == "noise":
            assert right not in candidate


def test_candidates_are_drawn_anew_and_held_out_sums_are_those_of_arithmetic(build):
    source = build(SPEC | {"terms": 2, "max_value": 3, "holdout": 4})
    first, second = drawn(source, 12), drawn(source, 24)[12:]
    assert {p.id for p in first} == {p.id for p in second}
    shown = [{p.id: p.meta["candidate"] for p in epoch} for epoch in (first, second)]
    assert shown[0] != shown[1]
    sums = build({"type": "synthetic/arithmetic", "terms": 2, "max_value": 3, "holdout": 4})
    asked = [p.messages[-1]["content"] for p in sums.heldout()]
    assert [p.meta["sum"] for p in source.heldout()] == asked
    assert not {p.meta["sum"] for p in first} & set(asked)


def test_weights_of_kinds(build):
    near = {"near": 1000.0, "right": 1000.0}
    kinds = Counter(p.task for p in drawn(build(SPEC | {"weights": near}), 300))
    assert kinds["near"] + kinds["right"] > 280
    with pytest.raises(ValidationError, match="'nearly' is no kind; known: right, dressed, near"):
        build(SPEC | {"weights": {"nearly": 1.0}})
    with pytest.raises(ValidationError, match="near: a weight must be above 0 and finite, got 0"):
        build(SPEC | {"weights": {"near": 0.0}})


def test_resume(build, resumes):
    resumes(build(SPEC), 17)


def test_a_rubric_shows_everything(build):
    with pytest.raises(ValidationError, match=r"\{answer\} is missing"):
        build(SPEC | {"rubric": "{question} {reference}"})
    with pytest.raises(ValidationError, match=r"\{candidate\} is no field"):
        build(SPEC | {"rubric": "{question} {reference} {answer} {candidate}"})


@pytest.mark.parametrize("scale", ["tiny", "full"])
async def test_the_judge_has_learned_from_the_questions_that_it_is_asked(scale):
    """cold_start_judge has the rubric of judge, filled in by the same words."""
    learned, last = load_recipe(RECIPES / "cold_start_judge.yaml")
    (asked,) = load_recipe(RECIPES / "judge.yaml", scale=scale)
    (judge,) = [one for one in flatten(asked.reward) if isinstance(one, Judging)]
    source = learned.prompts
    assert judge.rubric == source.rubric == last.prompts.rubric
    for prompt in drawn(source, 200):
        content = {"role": "user", "content": prompt.meta["sum"]}
        question = Prompt("p", (content,), answer=prompt.meta["reference"])
        *_, message = await judge.messages(question, {"answer": prompt.meta["candidate"]})
        assert message == {"role": "user", "content": prompt.messages[-1]["content"]}
