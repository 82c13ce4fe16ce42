from __future__ import annotations

import pytest

RELAXED = "chart/relaxed_accuracy"


@pytest.mark.parametrize(
    ("given", "gold", "value"),
    [
        ("105", "100", 1),
        ("94.9", "100", 0),
        ("12%", "0.12", 1),
        ("12%", "12", 0),
        ("0", "0.0", 0),
        ("2012", "2008", 1),
        ("1,050", "1000", 0),
        ("Blue", "blue", 1),
        ("nan", "3", 0),
        ("inf", "3", 0),
        ("104", ["7", "100"], 1),
    ],
)
def test_relaxed_accuracy(values, given, gold, value):
    assert values(RELAXED, [f"<answer>{given}</answer>"], answer=gold) == [value]


def test_soft_words_only_and_written(values):
    soft = {"type": RELAXED, "soft": 1.0}
    assert values(soft, ["94.9", "250"], answer="100") == [pytest.approx(0.949), 0.0]
    years = {"type": RELAXED, "numeric": False}
    assert values(years, ["2012", "2008"], answer="2008") == [0.0, 1.0]
    written = {"type": RELAXED, "read": "written", "zero": "number"}
    assert values(written, ["$1,050", "1.04k", "1000 units"], answer="1000") == [1.0, 1.0, 0.0]
    assert values(written, ["0.0", "0.01"], answer="0") == [1.0, 0.0]


@pytest.mark.parametrize(
    ("given", "gold", "value"),
    [("104", "100", 1), ("95", "100", 1), (".01", "0", 0), ("-52", "-50", 1)],
)
def test_the_chart_rule_of_mixed_r1(values, given, gold, value):
    spec = {"type": RELAXED, "read": "written", "zero": "number"}
    assert values(spec, [given], answer=gold) == [value]


@pytest.mark.parametrize(
    ("given", "gold", "graded", "strict"),
    [("240", "250", 0.96, 1), ("200", "250", 0.8, 0), ("600", "250", 0, 0), ("2.4k", "2400", 1, 1),
     ("0", "0", 1, 1), ("3", "0", 0, 0), ("seven", "7", 0, 0), ("Blue", "blue", 1, 1)],
)  # fmt: skip
def test_graded(values, given, gold, graded, strict):
    assert values("chart/graded", [given], answer=gold) == [pytest.approx(graded)]
    assert values({"type": "chart/graded", "strict_num": True}, [given], answer=gold) == [strict]


def test_graded_kinds(values, grade):
    listed = {"answer_type": "list"}
    found = values("chart/graded", ["3, 5"], answer="3, 4, 5", meta=listed)
    assert found == [pytest.approx(0.583333, abs=1e-6)]
    assert values("chart/graded", ["3, 4, 5"], answer=["3", "4", "5"]) == [1.0]
    year = {"answer_type": "year"}
    assert values("chart/graded", ["2010", "2020"], answer="2020", meta=year) == [0.0, 1.0]
    near = {"type": "chart/graded", "anls": 0.5}
    assert values(near, ["Pariss", "Rome"], answer="Paris") == [pytest.approx(5 / 6), 0.0]
    with pytest.raises(ValueError, match="must be num, text, list or year"):
        grade("chart/graded", ["1"], answer="1", meta={"answer_type": "colour"})


async def test_bigcharts_with_its_format(score, make_replies):
    spec = {
        "type": "weighted",
        "terms": {
            "answer": {"reward": "chart/graded"},
            "format": {"weight": 0.5, "reward": "text/format"},
        },
    }
    reply = "<think>t</think><answer>240</answer>"
    (only,) = await score(spec, make_replies([reply], answer="250"))
    assert only.value == pytest.approx(1.46)
