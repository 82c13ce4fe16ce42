"""vision/svg: finding, forbidding, rendering, comparing."""

from __future__ import annotations

import importlib.util

import pytest
from PIL import Image, ImageDraw

from trainer.errors import MissingService
from trainer.ops.parsing import Unparsable
from trainer.ops.sandbox import Sandbox
from trainer.ops.svg import brevity, colours, forbidden, set_f1, svg_in
from trainer.types import ScoreStatus

FORBID = ("script", "text", "foreignObject")


def test_colours_of_the_card():
    given, right = colours("#f00 #00f #FFF"), colours("#ff0000 #00ff00 #fff8")
    assert set_f1(given, right) == pytest.approx(0.666667, abs=1e-6)
    assert set_f1((), ()) == 1.0
    assert set_f1(("a",), ()) == 0.0


def test_length_of_the_card():
    assert brevity("x " * 1500 + "<!-- a long comment -->", 6000) == 0.75
    assert brevity("x" * 9000, 6000) == 0.0


@pytest.mark.parametrize(
    ("reply", "svg"),
    [
        ("a <svg>1</svg> b <svg x='2'>2</svg> c", "<svg x='2'>2</svg>"),
        ("<answer>```svg\n<svg>1</svg>\n```</answer> <svg>2</svg>", "<svg>1</svg>"),
        ("<svg><circle r='1'/><rect wid", "<svg><circle r='1'/></svg>"),
        ("<SVG>1</SVG>", "<SVG>1</SVG>"),
    ],
)
def test_finding(reply, svg):
    assert svg_in(reply) == svg


def test_no_svg():
    with pytest.raises(Unparsable):
        svg_in("a circle")


@pytest.mark.parametrize(
    ("svg", "held"),
    [
        ("<svg><script>x</script></svg>", "<script>"),
        ("<svg><svg:TEXT/></svg>", "<text>"),
        ("<svg><image href='http://x/y.png'/></svg>", "a reference to something outside"),
        ("<svg><use xlink:href = 'file:///etc/passwd'/></svg>", "a reference to something outside"),
        ("<svg style='fill:url(http://x)'/>", "a reference to something outside"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><svg/>", "an entity"),
        ("<svg><use href='#a' fill='url(#b)'/><textured/></svg>", None),
    ],
)
def test_forbidden(svg, held):
    assert forbidden(svg, FORBID) == held


@pytest.fixture(scope="module")
def _renders():
    if importlib.util.find_spec("resvg_py") is None:
        pytest.skip("resvg-py is not installed")
    try:
        Sandbox().open()
    except MissingService as error:
        pytest.skip(str(error))


def test_the_package_is_named(grade, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingService, match="pip install resvg-py"):
        grade("vision/svg", ["x"])


HEAD = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40">'
RED = f'{HEAD}<rect x="10" y="10" width="20" height="20" fill="#ff0000"/></svg>'


@pytest.mark.usefixtures("_renders")
def test_pictures(grade):
    image = Image.new("RGB", (40, 40), "white")
    ImageDraw.Draw(image).rectangle((10, 10, 29, 29), fill="red")
    messages = ({"role": "user", "content": [{"type": "image", "image": image}]},)
    replies = [
        RED,
        RED.replace('x="10"', 'x="2"'),
        f"{HEAD}</svg>",
        f"{HEAD}<rect</svg>",
        f"{HEAD}<text>red</text></svg>",
        "none",
    ]
    spec = {"type": "vision/svg", "sandbox": {"seconds": 4, "output_kb": 8192}}
    scores = grade(spec, replies, messages=messages)
    assert scores[0].value == pytest.approx(1.0, abs=1e-3)
    assert scores[0].value > scores[1].value > 0.5
    assert [score.value for score in scores[2:]] == [0.0] * 4
    assert scores[2].reason == "the picture is of one colour"
    assert scores[3].reason.startswith("exit code 1")
    assert scores[4].reason == "holds <text>"
    assert scores[5].status is ScoreStatus.UNPARSABLE


@pytest.mark.usefixtures("_renders")
def test_a_row_with_an_svg(grade):
    spec = {"type": "vision/svg", "colour_weight": 1.0, "rendered": 0.2, "canvas": 64}
    spec["sandbox"] = {"seconds": 4, "output_kb": 8192}
    blue = RED.replace("ff0000", "0000ff")
    same, other = grade(spec, [RED, blue], meta={"svg": RED})
    assert same.value == pytest.approx(1.0)
    assert other.value == pytest.approx(0.2 + 0.8 * other.parts["ssim"] / 2)
    assert grade(spec, [RED])[0].status is ScoreStatus.NOT_APPLICABLE
    with pytest.raises(ValueError, match="does not render"):
        grade(spec, [RED], meta={"svg": "<svg"})


def test_weights(make_reward):
    with pytest.raises(ValueError, match="all 0"):
        make_reward({"type": "vision/svg", "ssim_weight": 0})
