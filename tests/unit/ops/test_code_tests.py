"""Rows of tests: what goes in, what stays out; programs in replies; result sets; attributes."""

from __future__ import annotations

import base64
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainer.ops.chart_attributes import Drawn, jaccard, near_jaccard, read_drawn, shared
from trainer.ops.code_blocks import fenced, program
from trainer.ops.code_driver import decode, encode
from trainer.ops.code_tests import cases, same_text, same_value
from trainer.ops.parsing import Unparsable
from trainer.ops.sql_results import BrokenDatabase, as_rows, is_ordered, read_rows, same_rows


@pytest.mark.parametrize(
    ("tests", "stdin", "right"),
    [
        ([{"input": "1 2", "output": "3"}], "1 2", "3"),
        ({"inputs": ["1 2"], "outputs": ["3"]}, "1 2", "3"),
        ({"inputs": [["1", "2"]], "outputs": [["3"]]}, "1\n2", "3"),
        ('{"inputs": ["1 2"], "outputs": ["3"]}', "1 2", "3"),
    ],
)
def test_programs(tests, stdin, right):
    (case,) = cases(tests)
    assert (case.name, case.stdin, case.right) == (None, stdin, right)


def test_functions():
    (case,) = cases({"inputs": [[1, [2]]], "outputs": [3], "fn_name": "f"})
    assert (case.name, case.arguments, case.right) == ("f", (1, [2]), 3)
    (case,) = cases([{"input": [1], "output": 2}], "g")
    assert (case.name, case.arguments) == ("g", (1,))


def test_calls_as_lines_of_json():
    """LiveCodeBench and Eurus-2-RL-Data; APPS and TACO have lists, and answers in a list of one."""
    tests = {"inputs": ['[1, 2]\n"x"', "3"], "outputs": ["[[1, 2]]", "true"], "fn_name": "f"}
    first, second = cases(tests)
    assert (first.arguments, first.right) == (([1, 2], "x"), [[1, 2]])
    assert (second.arguments, second.right) == ((3,), True)
    wrapped, bare, text = cases(
        {"inputs": [[1]] * 3, "outputs": [[7], [7, 8], "7"], "fn_name": "f"}
    )
    right = ((first, [(1, 2)]), (second, True), (wrapped, 7), (wrapped, [7]), (bare, (7, 8)))
    for case, value in (*right, (text, "7")):
        assert case.passed(value, 0)
    wrong = ((first, [1, 2]), (second, "true"), (wrapped, 8), (bare, 7), (text, 7))
    for case, value in wrong:
        assert not case.passed(value, 0)
    (said,) = cases({"inputs": ["hello"], "outputs": ["olleh"], "fn_name": "f"})
    assert (said.arguments, said.right) == (("hello",), "olleh")


@pytest.mark.parametrize(
    ("text", "value", "passes"),
    [
        ("assert f(1, b=[2]) == 3", 3, True),
        ("assert 3 == f(1, b=[2])", 4, False),
        ("assert f(1) is None", None, True),
        ("assert f(1)", [0], True),
        ("assert not f(1)", [], True),
        ("assert set(f(1)) == {1, 2}", [2, 1, 1], True),
        ("assert round(f(1), 2) == 0.33, 'message'", 1 / 3, True),
        ("assert sorted(list(f(1))) == [1, 2]", (2, 1), True),
        ("assert len(f(1)) == 2", 7, False),
        ("assert f(-1) == -1", -1, True),
        ("assert f(1) == [1, 2]", (1, 2), False),
    ],
)
def test_asserts(text, value, passes):
    (case,) = cases(text)
    assert case.passed(value, 1e-6) is passes
    assert case.name == "f"


def test_human_eval():
    text = (
        "METADATA = {'author': 'x'}\n\ndef check(candidate):\n    assert candidate(1) == 2\n"
        "    assert candidate('a') == 'b'\n\ncheck(inc)"
    )
    first, second = cases(text, "inc")
    assert (first.name, second.arguments, second.right) == ("inc", ("a",), "b")
    with pytest.raises(ValueError, match="entry_point"):
        cases(text)


@pytest.mark.parametrize(
    "text",
    [
        "assert f(1) == g(2)",
        "assert (f(1) - 2) == 0",
        "assert abs(f(1) - 2) < 1e-6",
        "assert isclose(f(1), 2.0)",
        "assert f(1) == 2 and f(2) == 3",
        "assert f(x) == 1",
        "assert f(*[1]) == 1",
        "assert f(**{'a': 1}) == 1",
        "assert a.f(1) == 1",
        "for i in range(3): assert f(i) == i",
        "import os\nos.remove('x')",
    ],
)
def test_a_test_that_would_show_its_answer_is_refused(text):
    with pytest.raises(ValueError, match=r"right answer would have to be shown|asserts only"):
        cases(text)


@pytest.mark.parametrize(
    ("tests", "says"),
    [
        ([], "no tests"),
        ("", "no assert"),
        ("x = (", "not Python"),
        ({"inputs": [1], "outputs": []}, "1 inputs for 0 outputs"),
        ([{"input": 1}], "a list of {input, output}"),
        (7, "got '7'"),
    ],
)
def test_wrong_rows_are_named(tests, says):
    with pytest.raises(ValueError, match=says):
        cases(tests)


def test_same_text():
    assert same_text("1 \n2\n\n", "1\n2")
    assert not same_text("1\n\n2", "1\n2")
    assert not same_text("0.3333", "0.33334")
    assert same_text("a 0.33333", "a 0.33334", 1e-3)
    assert not same_text("a 0.3 1", "a 0.3", 1e-3)
    assert not same_text("b 0.3", "a 0.3", 1e-3)


def test_same_value():
    assert same_value(1, 1.0)
    assert same_value(float("nan"), float("nan"))
    assert same_value({"a": [0.1 + 0.2]}, {"a": [0.3]}, 1e-9)
    assert not same_value("1", 1.0, 1)
    assert not same_value([1], [1, 2])
    assert not same_value(10**400, 1.0, 1e-6)
    assert not same_value({"a": 1}, {"b": 1})


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.sets(st.integers())
    ),
    max_leaves=12,
)


@given(plain)
def test_plain_data_comes_through(value):
    back = decode(json.loads(json.dumps(encode(value))))
    assert back == value
    assert type(back) is type(value)


json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["list", "dict", "set", "bytes"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_data)
def test_foreign_data_is_a_value_error(data):
    try:
        decode(data)
    except ValueError:
        return


def test_odd_objects_equal_nothing():
    class Sly:
        def __eq__(self, other):
            return True

        __hash__ = None

    assert decode(encode([1])) == [1]
    with pytest.raises(ValueError, match="not data"):
        decode(encode(Sly()))
    deep: list = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(ValueError, match="deep"):
        encode(deep)


FENCES = "a\n```python\nx = 1\n```\nb\n~~~\ny\n~~~\n```sql\nselect 1\n```\n"


def test_programs_in_replies():
    assert fenced(FENCES) == [("python", "x = 1"), ("", "y"), ("sql", "select 1")]
    assert program(FENCES, ("sql",)) == "select 1"
    assert program("```python\n1\n```\n```python\n2\n```", ("python",)) == "2"
    assert program("```python\n1\n```\n<answer>```python\n2\n```</answer>", ("python",)) != "1"
    inside = "<answer>\n```py\n3\n```\n</answer>\n```py\n4\n```"
    assert program(inside, ("py",)) == "3"
    assert program("x = 5", ("python",), require=False) == "x = 5"
    for reply in ("x = 5", "```python\nopen", "```java\n1\n```", ""):
        with pytest.raises(Unparsable, match="fence"):
            program(reply, ("python",))
    with pytest.raises(Unparsable, match="empty"):
        program(" ", ("python",), require=False)


def test_order_of_a_query():
    assert is_ordered("select a from t ORDER  BY a")
    assert not is_ordered("select a from (select a from t order by a)")
    assert not is_ordered("select 'order by' from t -- order by a\n")
    assert is_ordered("select (1) from t where b = ')' order by (a)")


def test_rows():
    rows = read_rows(b'{"rows": [[1, 0.30000000000000004], [null, {"blob": "00"}]]}')
    assert rows == [(1, 0.3), (None, '{"blob": "00"}')]
    assert as_rows([[True, 0.1 + 0.2], 5]) == [(1, 0.3), (5,)]
    a, b = [(1,), (2,), (2,)], [(2,), (1,), (2,)]
    assert same_rows(a, b, ordered=False, bag=True)
    assert not same_rows(a, b, ordered=True, bag=True)
    assert not same_rows(a, [(1,), (2,)], ordered=False, bag=True)
    assert same_rows(a, [(1,), (2,)], ordered=False, bag=False)
    assert same_rows([], [], ordered=True, bag=True)
    for data in (b"", b"[", b"{}", b'{"rows": [1]}', b"7", b'{"error": "no such table"}'):
        with pytest.raises(ValueError, match=r"no result|no such table|7|\{\}"):
            read_rows(data)
    with pytest.raises(BrokenDatabase, match="near"):
        read_rows(b'{"broken": "near"}')


def test_chartmaster_card():
    text = jaccard(("a", "b", "c"), ("a", "b", "c", "d"))
    colour = jaccard(("r", "g"), ("r", "b"))
    value = near_jaccard((1, 2, 3), (1, 2, 4, 5), 0.0)
    assert (text, colour, value) == pytest.approx((0.75, 0.333333, 0.4), abs=1e-6)
    assert (text + colour + 1 + value) / 4 == pytest.approx(0.620833, abs=1e-6)
    assert (jaccard((), ()), jaccard((), ("a",))) == (1.0, 0.0)
    assert (near_jaccard((), (), 0.05), near_jaccard((), (1,), 0.05)) == (1.0, 0.0)
    assert near_jaccard((100, 0), (103, 0), 0.05) == 1.0
    assert near_jaccard((100, 101), (102,), 0.05) == 0.5
    same = Drawn(None, ("t",), (1.0,), ((1, 1, 0, 1, 0, 1),), ("#fff",))
    assert set(shared(same, same, 0).values()) == {1.0}


def test_a_picture_that_nobody_vouches_for():
    def told(**changes):
        picture = io.BytesIO()
        changes.pop("image", Image.new("RGB", (3, 2))).save(picture, "PNG")
        good = {"png": base64.b64encode(picture.getvalue()).decode()}
        good |= {"texts": ["a"], "values": [1], "layout": [[1]], "colours": ["#fff"]}
        return json.dumps(good | changes).encode()

    drawn = read_drawn(told())
    assert (drawn.image.size, drawn.texts, drawn.values) == ((3, 2), ("a",), (1.0,))
    bad = [b"", b"[1]", b"{}", told(png="@"), told(png=7), told(values=["x"]), told(layout=[7])]
    bad += [told(values=None), told(error="why"), told(image=Image.new("1", (5000, 5000)))]
    bad += [told(png=base64.b64encode(b"GIF89a").decode())]
    for data in bad:
        with pytest.raises(ValueError):  # noqa: PT011
            read_drawn(data)
