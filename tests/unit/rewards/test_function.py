from __future__ import annotations

import sys

import pytest
from PIL import Image
from pydantic import ValidationError

from trainer.rewards.base import Call
from trainer.types import ScoreStatus, Span

CODE = """
def lengths(completions, **kwargs):
    return [len(c[0]["content"]) for c in completions]

def plain(prompts, completions, completion_ids):
    assert prompts == ["q"] * len(completions), prompts
    return [len(c) + len(ids) for c, ids in zip(completions, completion_ids)]

def column(completions, solution, level=7):
    return [float(c[0]["content"] == s) + level for c, s in zip(completions, solution)]

def gold(completions, answer, task, trainer_state):
    assert (trainer_state.global_step, trainer_state.max_steps) == (3, 9)
    return [float(c[0]["content"] == a) for c, a in zip(completions, answer)]

def every(completions, **kwargs):
    assert sorted(kwargs) == ["answer", "completion_ids", "level", "log_extra", "log_metric",
                              "prompts", "task", "trainer_state"], sorted(kwargs)
    assert kwargs["level"] == [5, 5]
    kwargs["log_metric"]("ratio", 0.5)
    kwargs["log_extra"]("seen", [c[0]["content"] for c in completions])
    return [None, 1]

async def later(completions):
    import asyncio
    await asyncio.sleep(0)
    return [2.0 for _ in completions]

class Callable:
    def __call__(self, completions):
        return [3.0 for _ in completions]

instance = Callable()

def short(completions):
    return [1.0]

def several_turns(completions):
    roles = [[m["role"] for m in c] for c in completions]
    return [float(r == ["assistant", "tool", "assistant"]) for r in roles]

def seen(completions, answer, images, image):
    assert [i[0] for i in images] == image, (images, image)
    return [float(i.size[0]) if a == "18" else 0.0 for i, a in zip(image, answer)]

constant = 4
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "user_functions.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("user_functions", None)


def fn(name, **fields):
    return {"function": f"user_functions:{name}"} | fields


@pytest.mark.parametrize("name", ["lengths", "later", "instance"])
def test_sync_async_and_callable_objects(values, name):
    expected = {"lengths": [1, 2], "later": [2, 2], "instance": [3, 3]}[name]
    assert values(fn(name), ["a", "bb"]) == expected


def test_columns_reach_the_function(values):
    assert values(fn("column"), ["a", "b"], meta={"solution": "a"}) == [8.0, 7.0]
    assert values(fn("gold"), ["a", "b"], answer="a") == [1.0, 0.0]
    assert values(fn("plain", conversational=False), ["a", "bb"]) == [2, 4]


def test_logging_and_none(make_reward, make_replies):
    call = Call(step=3, total_steps=9)
    group = make_replies(["a", "bb"], meta={"level": 5})
    none, one = make_reward(fn("every")).grade_group(group, call)
    assert (none.value, none.status) == (None, ScoreStatus.NOT_APPLICABLE)
    assert one.value == 1.0
    assert call.metrics == {"ratio": 0.5}
    assert call.columns == {"seen": ["a", "bb"]}


def test_completions_hold_every_turn(make_reward, make_replies):
    group = make_replies(["a"])
    tool = Span(1, "tool", "tool", "42", [], [], [], [])
    group.rollouts[0].spans += [tool, Span(2, "assistant", "policy", "b", [], [], [], [])]
    (score,) = make_reward(fn("several_turns")).grade_group(group, Call())
    assert score.value == 1.0


def test_wrong_length_is_a_fault_of_all(grade):
    scores = grade(fn("short"), ["a", "b"])
    assert [s.status for s in scores] == [ScoreStatus.WRONG_LENGTH] * 2
    assert scores[0].reason == "returned 1 scores for 2 rollouts"


def test_several_functions_are_summed(grade):
    names = ["user_functions:lengths", "user_functions:later"]
    (score,) = grade({"function": names, "weights": [1, 0.5]}, ["abc"])
    assert score.value == 4.0
    assert score.parts == {"lengths": 3.0, "later": 2.0}
    first, _ = grade({"function": ["user_functions:short", names[0]]}, ["a", "b"])
    assert (first.value, first.status) == (None, ScoreStatus.WRONG_LENGTH)
    assert first.reason == "short: returned 1 scores for 2 rollouts"


def test_missing_column_names_it(grade):
    with pytest.raises(TypeError, match="needs the column 'solution'; the row has answer, task"):
        grade(fn("column"), ["a"])


def test_needs_come_from_the_signature(make_reward):
    assert make_reward(fn("column")).needs == {"meta.solution"}
    assert make_reward(fn("gold")).needs == {"answer", "task"}
    assert make_reward(fn("every")).needs == frozenset()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"function": "nowhere_at_all:fn"}, "cannot import 'nowhere_at_all'"),
        ({"function": "user_functions:lenghts"}, "did you mean 'lengths'"),
        ({"function": "user_functions:constant"}, "is not a function"),
        ({"function": "user_functions"}, "not of the form"),
        ({"function": "user_functions:short", "weights": [1, 2]}, "2 of them for 1 functions"),
        ({"function": []}, "at least 1"),
    ],
)
def test_refuses(make_reward, spec, message):
    with pytest.raises(ValidationError, match=message):
        make_reward(spec)


def test_functions_of_trl_load_unchanged(values):
    layout = {"function": "trl.rewards:think_format_reward"}
    assert values(layout, ["<think>a</think>b", "b"]) == [1.0, 0.0]
    accuracy = {"function": "trl.rewards:accuracy_reward"}
    replies = [r"\boxed{\frac{1}{3}}", r"\boxed{\frac{1}{2}}"]
    assert values(accuracy, replies, meta={"solution": r"\frac{1}{3}"}) == [1.0, 0.0]


def test_the_prompt_says_what_the_answer_and_the_images_are(make_reward, make_replies):
    """The data row may hold the answer uncut, and it never holds pixels."""
    image = Image.new("RGB", (30, 20))
    content = [{"type": "image", "image": image}, {"type": "text", "text": "?"}]
    group = make_replies(
        ["a", "b"],
        messages=({"role": "user", "content": content},),
        answer="18",
        meta={"answer": "3 * 6 = 18 #### 18", "images": [None]},
    )
    reward = make_reward({"function": "user_functions:seen"})
    assert "images" in reward.needs
    assert [score.value for score in reward.grade_group(group, Call())] == [30.0, 30.0]
