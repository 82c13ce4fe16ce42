"""transit_map, triples, rerank, wrong_span, rouge: the worked numbers of their cards."""

from __future__ import annotations

import pytest

from trainer.ops.rouge import common
from trainer.types import ScoreStatus

LINES = {"Line 1": ["A", "B", "C", "D"], "Line 2": ["X", "C", "Y", "Z"]}


def trip(*sections):
    return " -- ".join(
        f"Route Name: {route}\nDeparture Stop: {start} Station\nArrival Stop: {end} (Metro)"
        for route, start, end in sections
    )


@pytest.mark.parametrize(
    ("reply", "ends", "transfers", "difficulty", "acc", "detail", "value"),
    [
        (trip(("Line 1", "A", "C"), ("Line 2", "C", "Z")), "AZ", 1, "hard", 1, 4, 24),
        (trip(("Line 1", "A", "D"), ("Line 2", "C", "Z")), "AZ", 1, "hard", 0, 3, 3),
        (trip(("Line 1", "A", "D")), "AD", 0, "easy", 1, 1, 10.5),
        (trip(("Line 9", "A", "D")), "AD", 0, "middle", 0, -3, -1.8),
        (trip(("Line 1", "B", "D")), "AD", 0, "easy", 0, 0, 0),
    ],
)
def test_transit_map(grade, reply, ends, transfers, difficulty, acc, detail, value):
    meta = {"lines": LINES, "station_1": ends[0], "station_2": ends[1]}
    meta |= {"transfers": transfers, "difficulty": difficulty}
    (score,) = grade("vision/transit_map", [reply], meta=meta)
    assert score.parts == {"acc": acc, "detail": detail}
    assert score.value == pytest.approx(value)


def test_transit_map_edges(grade):
    meta = {"lines": LINES, "station_1": "A", "station_2": "D", "transfers": 0}
    (lost,) = grade("vision/transit_map", ["take line 1"], meta=meta)
    assert (lost.value, lost.status) == (0.0, ScoreStatus.UNPARSABLE)
    free = {"type": "vision/transit_map", "count_transfers_as_sections": False}
    (score,) = grade(free, [trip(("Line 1", "A", "D"))], meta=meta)
    assert score.parts["detail"] == 6
    assert grade(free, ["x"])[0].status is ScoreStatus.NOT_APPLICABLE
    with pytest.raises(ValueError, match="difficulty 'steep'"):
        grade(free, [trip(("Line 1", "A", "D"))], meta=meta | {"difficulty": "steep"})


@pytest.mark.parametrize(
    ("kind", "reply", "answer", "value"),
    [
        ("TorF1", r"\boxed{Yes}", 1, 12),
        ("TorF2", "So the answer is no.", 0, 12),
        ("TorF1", r"\boxed{no}", 1, 0),
        ("Counting1", r"\boxed{B}", 1, 12),
        ("Counting1", r"\boxed{BC}", 1, 0),
        ("Counting2", r"first \boxed{3}, then \boxed{ 7 }", 7, 12),
        ("Counting3", r"\boxed{seven}", 7, 0),
    ],
)
def test_transit_map_questions(grade, reply, kind, answer, value):
    """W = 1.2 of a middle map; transfers count only where a trip is planned."""
    meta = {"type": kind, "difficulty": "middle", "transfers": 1}
    (score,) = grade("vision/transit_map", [reply], answer=answer, meta=meta)
    assert score.value == pytest.approx(value)
    assert score.parts["detail"] == 0
    (lost,) = grade("vision/transit_map", ["?"], answer=answer, meta=meta)
    assert (lost.value, lost.status) == (0.0, ScoreStatus.UNPARSABLE)


def test_transit_map_of_another_type(grade):
    with pytest.raises(ValueError, match="type 'Counting9'"):
        grade("vision/transit_map", [r"\boxed{1}"], answer=1, meta={"type": "Counting9"})


CHANGES = [(0, "color", "red"), (3, "size", "small")]


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("[(0, color, red), (3, 'size', 'small')]", 10),
        ("[(0, color, blue), (3, shape, cube)]", 2),
        ("[(0, color, red), (1, color, red)]", 4),
        ("[]", -1),
        ("(0,color,red),(3,size,small),(1,size,big),(2,size,big)", 6),
        ("(0,color,red),(0,color,red)", 4),
        ('[["0", "color", "red"]]', 5),
    ],
)
def test_triples(values, answer, value):
    """Without the format's 1, which `weighted` adds."""
    assert values("vision/triples", [f"<answer>{answer}</answer>"], answer=CHANGES) == [value]


def test_triples_edges(grade, values):
    (lost,) = grade("vision/triples", ["the cube is red"], answer=CHANGES)
    assert (lost.value, lost.status) == (-1.0, ScoreStatus.UNPARSABLE)
    listing = ["(0,color,red),(0,color,blue),(0,color,green),(3,size,small),(3,size,big)"]
    assert values("vision/triples", listing, answer=CHANGES) == [10 + 3 * 1.5 - 3]
    once = {"type": "vision/triples", "once": True}
    assert values(once, listing, answer=CHANGES) == [10 - 3]
    assert values(once, ["(0,color,blue),(3,shape,cube)"], answer=CHANGES) == [2]
    assert values(once, ["(0,size,big),(0,color,blue)"], answer=CHANGES[:1]) == [1.5 - 1]
    same = {"type": "vision/triples", "synonyms": {"grey": "gray"}}
    assert values(same, ["(0,color,Grey)"], answer=[(0, "color", "gray")]) == [5]
    half = {"type": "vision/triples", "per_gold": True}
    assert values(half, ["(0,color,red),(3,size,small)"], answer=CHANGES) == [5.0]
    with pytest.raises(ValueError, match="no triple"):
        grade("vision/triples", ["(0,color,red)"], answer=[(1, 2)])


@pytest.mark.parametrize(
    ("order", "rank", "listed"),
    [
        ([4, 1, 2, 3, 5], 0.921811, 1),
        ([2, 4], 1, 0.4),
        ([7, 2, 2, 4, 1, 3], 0.125 / 1.125 + 1 / 64 / 1.125, 0.666667),
        ([3], 0, 0.2),
        ([1] * 11, 0, -0.2),
    ],
)
def test_rerank(grade, order, rank, listed):
    meta = {"candidates": 5}
    (score,) = grade("text/rerank", [f"<answer>{order}</answer>"], answer=[2, 4], meta=meta)
    assert score.parts == {
        "rank": pytest.approx(rank, abs=1e-6),
        "list": pytest.approx(listed, abs=1e-6),
    }
    assert score.value == pytest.approx(rank + listed, abs=1e-6)


def test_rerank_edges(grade, values):
    meta = {"candidates": 5, "positives": [1]}
    assert grade("text/rerank", ["the first"], meta=meta)[0].status is ScoreStatus.UNPARSABLE
    clamped = {"type": "text/rerank", "clamp": True, "rank_weight": 0}
    assert values(clamped, [str([1] * 11)], meta=meta) == [0.0]
    with pytest.raises(ValueError, match="column candidates"):
        grade("text/rerank", ["[1]"], answer=[1])


CHAIR = {"solution_original": "a red wooden chair", "solution_target": "a blue wooden chair"}


@pytest.mark.parametrize(
    ("reply", "strict", "relaxed"),
    [
        (r"\boxed{blue chair}", 0, 1),
        (r"\boxed{a red wooden chair}", 0, 0),
        (r"\boxed{'A blue wooden chair.'}", 1, 1),
        (r"\boxed{a blue wooden chair} or \boxed{x}", 1, 1),
        ("I think:\na blue  wooden chair", 1, 1),
        (r"\boxed{in the whole long caption a blue wooden chair stands}", 0, 1),
    ],
)
def test_wrong_span(values, reply, strict, relaxed):
    assert values("text/wrong_span", [reply], meta=CHAIR) == [strict]
    assert values({"type": "text/wrong_span", "kind": "relaxed"}, [reply], meta=CHAIR) == [relaxed]


def test_wrong_span_edges(grade, values):
    relaxed = {"type": "text/wrong_span", "kind": "relaxed"}
    gone = {"solution_original": "a large dog", "solution_target": "a dog"}
    assert grade(relaxed, [r"\boxed{a dog}"], meta=gone)[0].status is ScoreStatus.NOT_APPLICABLE
    more = {"solution_original": "two dogs", "solution_target": "two large dogs"}
    assert values(relaxed, [r"\boxed{large}"], meta=more) == [1.0]
    short = relaxed | {"shortest": 3}
    on = {"solution_original": "cat in box", "solution_target": "cat on box"}
    assert values(short, [r"\boxed{one}", r"\boxed{on it}"], meta=on) == [0.0, 1.0]
    f1 = {"type": "text/wrong_span", "kind": "f1"}
    assert values(f1, [r"\boxed{blue chair}", "x " * 20], meta=CHAIR) == [pytest.approx(2 / 3), 0]
    (lost,) = grade("text/wrong_span", [r"\boxed{never closed"], meta=CHAIR)
    assert lost.status is ScoreStatus.UNPARSABLE


def test_rouge(values):
    one = {"type": "text/rouge", "kinds": ["1"]}
    assert values(one, ["the cat sat"], answer="The cat ran away.") == [pytest.approx(4 / 7)]
    two = {"type": "text/rouge", "kinds": ["2"]}
    assert values(two, ["the cat sat"], answer="the cat ran away") == [pytest.approx(2 / 5)]
    longest = {"type": "text/rouge", "kinds": ["L"]}
    assert values(longest, ["sat the cat"], answer="the cat sat") == [pytest.approx(2 / 3)]
    assert values("text/rouge", ["the cat sat", "!"], answer="the cat sat") == [1.0, 0.0]
    assert values("text/rouge", ["a b"], answer=["x", "a b"]) == [1.0]
    assert common("abcbdab", "bdcaba") == 4
