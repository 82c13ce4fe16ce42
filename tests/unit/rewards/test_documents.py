"""text/table (TEDS) and text/page."""

from __future__ import annotations

import time

import pytest

from trainer.ops.table_tree import parse_table, teds
from trainer.types import ScoreStatus

GOLD = "<table><tr><td>a</td><td>b</td></tr></table>"


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (GOLD, 1),
        ("<table>\n<tr><th> a </th><td><b>b</b></td></tr>\n</table>", 1),
        ("<table><tr><td>a<td>b</table>", 1),
        ("<table><tr><td>a</td><td>c</td></tr></table>", 3 / 4),
        ("<table><tr><td>a</td></tr></table>", 3 / 4),
        ("<table><tr><td>a</td><td>ab</td></tr></table>", 1 - 0.5 / 4),
        ('<table><tr><td>a</td><td colspan="2">b</td></tr></table>', 3 / 4),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td><td>d</td></tr></table>", 1 - 3 / 7),
        ("<table><tbody><tr><td>a</td><td>b</td></tr></tbody></table>", 1 - 1 / 5),
        ("<table><tr><td>b</td><td>a</td></tr></table>", 2 / 4),
        ("<table></table>", 1 / 4),
        (f"see\n```html\n{GOLD}\n```", 1),
        (f"{GOLD}<table><tr><td>x</td></tr></table>", 1),
    ],
)
def test_teds_by_hand(values, answer, value):
    found = values("text/table", [f"<answer>{answer}</answer>"], answer=GOLD)
    assert found == [pytest.approx(value)]


def test_tables_that_are_none(grade, values):
    row = "<tr>" + "<td>x</td>" * 40 + "</tr>"
    for answer in ("a | b", f"<table>{row * 3}</table>", "<tr><td>a</td></tr>"):
        (score,) = grade("text/table", [answer], answer=GOLD)
        assert (score.value, score.status) == (0.0, ScoreStatus.UNPARSABLE)
    assert values("text/table", [GOLD], answer=[f"<table>{row}</table>", GOLD]) == [1.0]
    with pytest.raises(ValueError, match="expected HTML"):
        grade("text/table", [GOLD], answer="a | b")


def test_the_distance_is_symmetric_and_quick():
    def table(rows, columns, say):
        cells = ("".join(f"<td>{say(i, j)}</td>" for j in range(columns)) for i in range(rows))
        return parse_table(f"<table>{''.join(f'<tr>{c}</tr>' for c in cells)}</table>", 1000)

    a = table(12, 8, lambda i, j: f"cell {i * j}")
    b = table(14, 7, lambda i, j: f"cell {i + j}")
    start = time.process_time()
    assert teds(a, b) == pytest.approx(teds(b, a))
    assert 0 < teds(a, b) < teds(a, a) == 1
    assert time.process_time() - start < 5


PAGE = "The title\n\nOne block of text.\n\nAnother block."


@pytest.mark.parametrize(
    ("answer", "blocks", "order"),
    [
        (PAGE, 1, 1),
        ("The title\n \nOne block  of\ntext.\n\nAnother block.", 1, 1),
        ("One block of text.\n\nAnother block.", 2 / 3, 1),
        ("Another block.\n\nThe title\n\nOne block of text.", 1, 1 / 3),
        ("The title\n\nOne block of text.\n\nAnother block.\n\nqqqqqq", 3 / 4, 1),
    ],
)
def test_pages_by_hand(grade, answer, blocks, order):
    (score,) = grade("text/page", [f"<answer>{answer}</answer>"], answer=PAGE)
    assert score.parts == {"blocks": pytest.approx(blocks), "order": pytest.approx(order)}
    assert score.value == pytest.approx(0.8 * blocks + 0.2 * order)


def test_page_edges(grade, values):
    assert values("text/page", ["<answer></answer>", "x"], answer="") == [1.0, 0.0]
    loop = "a\n\n" * 300
    assert grade("text/page", [loop], answer=PAGE)[0].status is ScoreStatus.UNPARSABLE
    loud = {"type": "text/page", "ignore_case": True}
    assert values(loud, [PAGE.upper()], answer=PAGE) == [1.0]
