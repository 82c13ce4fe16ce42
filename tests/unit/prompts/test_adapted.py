from __future__ import annotations

import json

import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from trainer.errors import DataError
from trainer.ops.rows import lisa
from trainer.prompts.base import Prompts
from trainer.types import Rollout, Span
from trainer.yaml import load_recipe


@pytest.fixture
def source(tmp_path):
    """`source(rows)`: a jsonl file beside a picture."""
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")

    def write(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"type": "files", "path": str(path)}

    return write


def make(source, adapt, **fields):
    spec = {"type": "adapted", "source": source, "adapt": f"trainer.ops.rows:{adapt}"} | fields
    return TypeAdapter(Prompts).validate_python(spec)


def only(prompts):
    return next(prompts.stream(0))


def test_scienceqa(source):
    row = {"question": "Which?", "choices": ["a cat", "a dog"], "answer": 1, "image": "a.png"}
    prompt = only(make(source(row), "scienceqa", task="match", template="think_answer"))
    assert (prompt.answer, prompt.task) == ("B", "match")
    assert prompt.meta["options"] == ["a cat", "a dog"]
    image, text = prompt.messages[-1]["content"]
    assert image["image"].size == (30, 20)
    assert text["text"] == "Which?\n(A) a cat\n(B) a dog"
    without = make(source(row | {"image": None}), "scienceqa")
    assert only(without).messages[-1]["content"] == "Which?\n(A) a cat\n(B) a dog"


def test_refcoco_captions_and_lisa(source):
    row = {"bbox": [1, 2, 10, 5], "answer": ["the cat", "cat"], "image": "a.png"}
    prompt = only(make(source(row), "refcoco"))
    assert prompt.answer == [1, 2, 11, 7]
    assert prompt.meta["bbox_space"] == "pixels"
    assert "the cat" in prompt.messages[-1]["content"][1]["text"]
    said = {"captions": ["a cat", "one cat"], "image": "a.png"}
    assert only(make(source(said), "captions")).answer == ["a cat", "one cat"]
    wish = {"text": "what to sit on", "points": [[3, 4], [9, 1], [5, 8]], "image": "a.png"}
    prompt = only(make(source(wish), "lisa"))
    assert prompt.answer == [3, 1, 9, 8]
    assert prompt.messages[-1]["content"][1]["text"].endswith("instruction: what to sit on")


def test_lisas_demonstration_is_the_answer_in_thousandths(source):
    """The reward of the recipe finds the row's own box in it."""
    wish = {"instruction": "the seat", "box": [3, 1, 9, 16], "image": "a.png"}
    assert "demonstration" not in only(make(source(wish), "lisa")).meta
    prompt = only(make(source(wish | {"width": 30, "height": 20}), "lisa"))
    assert prompt.meta["demonstration"] == "<answer>(100,50),(300,800)</answer>"
    (recipe,) = load_recipe("recipes/visual_rft_grounding.yaml", scale="full")
    told = Rollout([Span(None, "assistant", "policy", prompt.meta["demonstration"], *[[]] * 4)])
    assert recipe.evaluation.reward.grade(told, prompt) == pytest.approx(1.0)
    held = lisa({"text": "x", "box": [-1, 0, 31, 20], "image": Image.new("RGB", (30, 20))})
    assert held["demonstration"] == "<answer>(0,0),(1000,1000)</answer>"


def test_it_names_the_row_it_cannot_read(source):
    good = {"bbox": [1, 2, 10, 5], "answer": "cat", "image": "a.png"}
    bad = make(source({"answer": "cat", "image": "a.png"}), "refcoco")
    with pytest.raises(
        DataError, match=r"rows\.jsonl:1: prompts\.adapt .* 'bbox'; columns: answer"
    ):
        only(bad)
    held = make(source(*[good] * 8), "refcoco", holdout=2)
    assert len(held.heldout()) == 2
    assert held.columns() >= {"answer", "images", "meta.bbox_space"}


def test_what_it_refuses(source):
    with pytest.raises(ValidationError, match="has no 'chartqq'"):
        make(source({}), "chartqq")
    with pytest.raises(ValidationError, match="is not a function"):
        TypeAdapter(Prompts).validate_python(
            {"type": "adapted", "source": source({}), "adapt": "rows"}
        )
