"""vision/chart_code: what is drawn, compared, and what a reply cannot do about it."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from trainer.errors import MissingService
from trainer.ops.sandbox import Cell
from trainer.ops.verdict import judged
from trainer.rewards.base import Call
from trainer.rewards.vision.chart_code import ChartCode
from trainer.types import ScoreStatus

SMALL = "import matplotlib.pyplot as plt\nplt.figure(figsize=(2, 1.5))\n"
BARS = SMALL + 'plt.bar(["a", "b", "c"], [1, 2, 4], color="red")\nplt.title("Sales")\n'


def py(code: str) -> str:
    return f"```python\n{code}\n```"


@pytest.fixture(scope="module")
def reward():
    """One for all tests: its server imports matplotlib once."""
    reward = ChartCode(rendered=0.1)
    try:
        reward.warm()
    except MissingService as error:
        pytest.skip(str(error))
    return reward


@pytest.fixture
def draw(reward, make_replies):
    """Scores of replies, by the one reward."""

    def run(replies, **prompt):
        group = make_replies([py(reply) for reply in replies], **prompt)
        return judged(reward.grade_group(group, Call()), group.rollouts)

    return run


def test_what_is_alike(draw):
    same, saved, other = draw(
        [
            BARS,
            BARS + "plt.savefig('x.png')\nplt.close()",
            BARS.replace("red", "blue").replace("4]", "8]"),
        ],
        answer=BARS,
    )
    assert same.value == pytest.approx(1.0)
    assert saved.value == pytest.approx(1.0)
    assert other.parts["colour"] == 0.0
    assert other.parts["value"] == 0.5
    assert other.parts["layout"] == 1.0
    similar = (other.parts["attributes"] + other.parts["ssim"]) / 2
    assert other.value == pytest.approx(0.1 + 0.9 * similar)
    assert 0.1 < other.value < 0.7


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import matplotlib.pyplot as plt\nfig = plt.figure()", "the picture is of one colour"),
        ("print(1)", "the code draws no figure"),
        ("1 / 0", "exit code 1: ZeroDivisionError: division by zero"),
        (SMALL + "plt.gcf().set_size_inches(50, 1)", "the figure is larger than 20.0 inches"),
        (
            'import os; os.write(3, b\'{"png": "", "texts": ["Sales"]}\'); os._exit(0)',
            "no chart came back (UnidentifiedImageError)",
        ),
    ],
)
def test_what_is_worth_nothing(draw, code, reason):
    (score,) = draw([code], answer=BARS)
    assert (score.value, score.reason, score.status) == (0.0, reason, ScoreStatus.OK)


def test_no_code(reward, make_replies):
    group = make_replies(["a chart"], answer=BARS)
    (score,) = judged(reward.grade_group(group, Call()), group.rollouts)
    assert (score.value, score.status) == (0.0, ScoreStatus.UNPARSABLE)


def test_rows(draw, make_reward):
    picture = {"type": "image", "image": Image.new("RGB", (160, 120), "white")}
    (score,) = draw([BARS], messages=({"role": "user", "content": [picture]},))
    assert set(score.parts) == {"ssim"}
    assert draw([BARS])[0].status is ScoreStatus.NOT_APPLICABLE
    with pytest.raises(ValueError, match="own code draws no chart"):
        draw([BARS], answer="1 / 0")
    with pytest.raises(ValueError, match="lpips_weight are all 0"):
        make_reward({"type": "vision/chart_code", "attribute_weight": 0, "visual_weight": 0})


def test_a_prepared_server_draws_the_same(reward):
    """As a process of its own that imports everything for this one chart. (Code of ours.)"""
    alone = reward.model_copy()
    alone._cell = Cell(reward.sandbox.model_copy(update={"seconds": 60.0}), "none")
    code = BARS + "plt.plot([1, 2, 3], label='x')\nplt.legend()\nplt.text(0, 1, '$x^2$ \u4e2d')\n"
    ahead, anew = json.loads(reward._draw(code).result), json.loads(alone._draw(code).result)
    assert ahead == anew
    assert len(ahead["png"]) > 3000


TAMPERS = """
import matplotlib, numpy
matplotlib.rcParams["axes.facecolor"] = "black"
matplotlib.axes.Axes.bar = lambda *given, **named: 1 / 0
numpy.asarray = None
import PIL.Image
PIL.Image.open = lambda *given, **named: 1 / 0
"""


def test_one_reply_draws_nothing_into_the_next(draw):
    """All on one server. What it does to matplotlib counts for itself alone."""
    replies = [TAMPERS, BARS, TAMPERS + BARS, BARS + "#"]
    values = [score.value for score in draw(replies, answer=BARS)]
    assert values == [0.0, pytest.approx(1.0), 0.0, pytest.approx(1.0)]


def test_equal_charts_are_drawn_once(reward, draw, monkeypatch):
    drawn = []
    plain = Cell.run
    monkeypatch.setattr(Cell, "run", lambda *a, **k: drawn.append(k) or plain(*a, **k))
    right, reply = BARS + "# right", BARS + "# reply"
    values = [score.value for score in draw([reply, "2 / 0", reply, "2 / 0"], answer=right)]
    assert values == [pytest.approx(1.0), 0.0, pytest.approx(1.0), 0.0]
    assert len(drawn) == 3  # the right one, and two
