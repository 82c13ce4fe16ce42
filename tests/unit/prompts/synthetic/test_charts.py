"""Each description's chart, drawn and read back; the teacher's mistakes draw others."""

from __future__ import annotations

import random

import pytest

from trainer.ops.code_blocks import program
from trainer.prompts.synthetic.charts import Charts


@pytest.mark.parametrize(
    ("question", "drawn"),
    [
        ("red bars 3 5 2\n", ("patches", [3, 5, 2], "red")),
        ("blue line 1 6 4\n", ("lines", [1, 6, 4], "blue")),
        ("black dots 2 2 1\n", ("collections", [2, 2, 1], "black")),
    ],
)
def test_what_is_drawn(question, drawn):
    plt = pytest.importorskip("matplotlib.pyplot")
    from matplotlib.colors import same_color

    plt.switch_backend("agg")
    row = next(r for r in Charts().rows() if r["question"] == question)
    try:
        exec(row["code"], {})
        axes = plt.gca()
        kind, values, colour = drawn
        found = list(getattr(axes, kind))
        if kind == "patches":
            seen = [one.get_height() for one in found]
        elif kind == "lines":
            seen = list(found[0].get_ydata())
        else:
            seen = found[0].get_offsets()[:, 1].tolist()
        ink = found[0].get_color() if kind == "lines" else found[0].get_facecolor()
        assert seen == values
        assert same_color(ink, colour)
    finally:
        plt.close("all")


def test_every_problem_is_another_one():
    rows = Charts().rows()
    assert len({row["code"] for row in rows}) == len(rows) == 4 * 3 * 6**3


def test_a_careless_teacher():
    source, rng = Charts(teacher_error=1.0), random.Random(0)
    for index in range(0, 2500, 25):
        row = source.rows()[index]
        drawn = program(source.drawn(row, rng)["demonstration"], ("python",))
        assert drawn.startswith("import matplotlib.pyplot as plt\nplt.")
        assert f'"{row["parts"][0]}"' not in drawn
        assert _values(row["code"]) not in drawn
    exact = Charts(teacher_error=0.0).drawn(row, rng)["demonstration"]
    assert program(exact, ("python",)) == row["code"]
    drawn = [Charts().drawn(row, rng)["demonstration"] != exact for _ in range(2000)]
    assert sum(drawn) / 2000 == pytest.approx(1 - 0.75**5, abs=0.03)


def _values(code: str) -> str:
    return code[code.index("],[") : code.index("],color")]
