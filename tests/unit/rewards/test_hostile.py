"""Whatever a reply holds, a rule gives a finite value and a status, and it does not take long."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from trainer.ops.verdict import judged
from trainer.rewards.base import Call, Reward
from trainer.types import Group, Prompt, Rollout, ScoreStatus, Span

BOX, BOXES = [10, 10, 50, 50], [["cat", [10, 10, 50, 50]], ["dog", [60, 60, 90, 90]]]
META = {
    "width": 100,
    "height": 100,
    "duration": 60,
    "candidates": 5,
    "options": ["a cat", "a dog"],
    "solution_original": "a red chair",
    "lines": {"1": ["A", "B"]},
    "station_1": "A",
    "station_2": "B",
    "transfers": 0,
}
ANSWERS = {
    "chart/graded": "12",
    "chart/relaxed_accuracy": "12",
    "length/characters": None,
    "text/anls": "a cat",
    "text/choice": "B",
    "text/edit_distance": "a cat",
    "text/exact": "a cat",
    "text/format": None,
    "text/label": "cat",
    "text/label_set": "cat, dog",
    "text/letters": "A",
    "text/match": "B",
    "text/repetition": None,
    "text/rerank": [2, 4],
    "text/rouge": "a cat on a mat",
    "text/wrong_span": "a blue chair",
    "text/yes_no": "yes",
    "vision/confident_detection": BOXES,
    "vision/count": 3,
    "vision/criterion": BOXES,
    "vision/detection_set": BOXES,
    "vision/gaussian": BOX,
    "vision/iou": BOX,
    "vision/point_in_box": BOX,
    "vision/temporal_iou": [10, 20],
    "vision/transit_map": None,
    "vision/triples": [(0, "color", "red")],
    "vision/weighted_detection": BOXES,
}
EXTRA = {"vision/iou": {"outside": "refuse"}, "vision/detection_set": {"measure": "map"}}
MADE = {
    name: TypeAdapter(Reward).validate_python({"type": name} | EXTRA.get(name, {}))
    for name in ANSWERS
}
PIECES = st.lists(
    st.sampled_from(
        ["<answer>", "</answer>", "<think>", "</think>", "[", "]", "{", "}", "(", ")", ",", ":",
         "10", "-5", "1e400", "NaN", "Infinity", "999999999999999999", ".5", "%", "bbox_2d", '"',
         "'", "label", "cat", "```json", "```", "\n", " ", "to", "yes", "B", "\\boxed{", "x", "y",
         "start_time", "0:30", "--", "Route Name:", "Departure Stop:", "Arrival Stop:", "\u0663",
         "\ud83d\ude00", "\x00"]
    ),
    max_size=40,
).map("".join)  # fmt: skip
MALFORMED = {
    "no box": "a cat",
    "five numbers": "<answer>[10, 10, 50, 50, 7]</answer>",
    "box outside": "<answer>[10, 10, 50, 5000]</answer>",
    "reversed corners": "<answer>[50, 50, 10, 10]</answer>",
    "NaN": '<answer>[{"bbox_2d": [NaN, 1, 2, 3], "label": "cat"}]</answer>',
    "empty": "",
    "empty tag": "<answer></answer>",
}


def score(name, reply):
    span = Span(None, "assistant", "policy", reply, [7], [True], [0.0], [0])
    prompt = Prompt("p", ({"role": "user", "content": "q"},), ANSWERS[name], meta=META)
    group = Group(prompt, [Rollout(spans=[span])])
    (found,) = judged(MADE[name].grade_group(group, Call()), group.rollouts)
    assert found.value is None or math.isfinite(found.value)
    assert not found.status.is_fault, found.reason
    assert found.reason or found.status is not ScoreStatus.UNPARSABLE
    return found


@pytest.mark.parametrize("name", sorted(ANSWERS))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(reply=st.text() | PIECES)
def test_no_reply_is_a_fault(name, reply):
    score(name, reply)


@pytest.mark.parametrize("kind", sorted(MALFORMED))
@pytest.mark.parametrize(
    "name", ["vision/iou", "vision/detection_set", "vision/confident_detection", "vision/gaussian"]
)
def test_malformed_boxes_have_a_reason(name, kind):
    found = score(name, MALFORMED[kind])
    if name == "vision/iou" or kind != "box outside":
        expected = {ScoreStatus.UNPARSABLE}
        if (name, kind) in {("vision/gaussian", "reversed corners"), ("vision/gaussian", "NaN")}:
            expected.add(ScoreStatus.OK)  # GUI-G2 squares the sides
        assert found.status in expected
        assert not found.value or found.status is ScoreStatus.OK


HUGE = [
    *("[", "(", "{", "1 ", "[1,2,3,4],", "<answer>", "</answer>", "<answer>[1,2,3,4]</answer>"),
    *("\\boxed{", "a ", "```", "'", "1:", " ", "B "),
    "-- Route Name: Departure Stop: Arrival Stop:",
]


@pytest.mark.parametrize("name", sorted(ANSWERS))
@pytest.mark.parametrize("tagged", [False, True])
def test_ten_megabytes_take_less_than_a_second(name, tagged):
    for piece in ("[", "<answer>", "\\boxed{", "1 "):
        text = piece * (10_000_000 // len(piece))
        reply = f"<think>t</think><answer>{text}</answer>" if tagged else text
        start = time.process_time()
        score(name, reply)
        took = time.process_time() - start
        assert took < 1, f"{piece!r} took {took:.2f} s"


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_the_longest_answer_that_is_read_takes_less_than_a_second(name):
    for piece in HUGE:
        text = piece * (199_000 // len(piece))
        start = time.process_time()
        score(name, f"<answer>{text}</answer>")
        took = time.process_time() - start
        assert took < 1, f"{piece!r} took {took:.2f} s"
