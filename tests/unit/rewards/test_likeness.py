"""Likeness by features and by looks: of pictures that an agent left, and of what code draws."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from PIL import Image, ImageDraw

from trainer.config import Scoring
from trainer.errors import MissingService
from trainer.ops.sandbox import Sandbox
from trainer.scoring import Scorer
from trainer.types import ScoreStatus

RIGHT = Image.new("RGB", (12, 8), "white")
ImageDraw.Draw(RIGHT).rectangle((2, 2, 6, 6), fill="red")
TURNED, OTHER = RIGHT.rotate(180), RIGHT.transpose(Image.Transpose.TRANSPOSE)
VECTORS = {RIGHT.tobytes(): [0.0, 1.0], TURNED.tobytes(): [0.6, 0.8]}
"""Of any other picture: [0, -1]."""
DISTANCES = {RIGHT.tobytes(): 0.0, TURNED.tobytes(): 0.25}
"""Of any other picture: 1.5."""


class Served:
    """What a run with `scoring.image_encoder` and `scoring.lpips` gives, with given numbers."""

    def __init__(self):
        self.asked = []

    async def embed_images(self, images):
        self.asked.append(images)
        return [VECTORS.get(image.tobytes(), [0.0, -1.0]) for image in images]

    async def lpips(self, images, right):
        assert right is RIGHT
        self.asked.append(images)
        return [DISTANCES.get(image.tobytes(), 1.5) for image in images]


@pytest.fixture
def drawn(make_reward, make_replies):
    """Scores of pictures against RIGHT, and what the models were asked."""

    async def run(kind, images, **fields):
        messages = ({"role": "user", "content": [{"type": "image", "image": RIGHT}]},)
        group = make_replies(["x"] * len(images), messages=messages)
        for rollout, image in zip(group.rollouts, images, strict=True):
            if image is not None:
                rollout.artifacts["image"] = image
        served = Served()
        reward = make_reward({"type": f"vision/{kind}"} | fields)
        return await reward.score(group, served), served

    return run


async def test_cosines_by_hand(drawn):
    images = [RIGHT.copy(), None, TURNED, OTHER, Image.new("RGB", (3, 3), "white")]
    scores, served = await drawn("embedding", images)
    assert [score.value for score in scores] == pytest.approx([1.0, 0.0, 0.8, 0.0, 0.0])
    assert scores[0].value == 1.0
    assert scores[1].status is ScoreStatus.UNPARSABLE
    assert scores[4].reason == "the picture is of one colour"
    assert [len(asked) for asked in served.asked] == [4]  # together, the right one once
    assert {image.size for image in served.asked[0]} == {RIGHT.size}
    scores, _ = await drawn("embedding", images, mapped=True, blank=True)
    assert [score.value for score in scores] == pytest.approx([1.0, 0.0, 0.9, 0.0, 0.0])


async def test_looks_by_hand(drawn):
    scores, _ = await drawn("lpips", [RIGHT.copy(), TURNED, None, OTHER])
    assert [score.value for score in scores] == [1.0, 0.75, 0.0, 0.0]
    assert scores[2].status is ScoreStatus.UNPARSABLE


async def test_nobody_is_asked_about_nothing(drawn):
    for kind in ("embedding", "lpips"):
        (only,), served = await drawn(kind, [None])
        assert (only.value, served.asked) == (0.0, [])


async def test_a_prompt_without_a_picture(make_reward, make_replies):
    with pytest.raises(ValueError, match="no image to compare with"):
        await make_reward("vision/embedding").score(make_replies(["x"]), Served())


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("embedding", r"set scoring\.image_encoder, for instance \{path: facebook/dinov2"),
        ("lpips", r"set scoring\.lpips"),
    ],
)
async def test_the_setting_is_named(score, make_replies, kind, named):
    messages = ({"role": "user", "content": [{"type": "image", "image": RIGHT}]},)
    group = make_replies(["x"], messages=messages)
    group.rollouts[0].artifacts["image"] = RIGHT
    with pytest.raises(MissingService, match=named):
        await score(f"vision/{kind}", group)


@pytest.mark.parametrize(
    ("parts", "value"),
    [
        ({"ssim": 0.72, "embedding": 0.90}, 0.914),
        ({"ssim": 0.0, "embedding": 0.3}, 0.59),
        ({"ssim": 0.85, "embedding": 0.55}, 0.835),
    ],
)
def test_the_cards_weights(make_reward, parts, value):
    reward = make_reward(
        {"type": "vision/svg", "ssim_weight": 0.4, "embedding_weight": 0.6, "rendered": 0.5}
    )
    assert reward.worth(parts) == pytest.approx(value)
    assert "image_encoder" in reward.needs
    assert "lpips" not in reward.needs


def test_weights_of_charts(make_reward):
    spec = {"type": "vision/chart_code", "embedding_weight": 1.0, "lpips_weight": 2.0}
    parts = {"attributes": 0.4, "ssim": 0.2, "embedding": 1.0, "lpips": 0.5, "text": 0.9}
    assert make_reward(spec).worth(parts) == pytest.approx((0.2 + 0.1 + 1.0 + 1.0) / 4)
    del parts["attributes"]
    assert make_reward(spec).worth(parts) == pytest.approx((0.1 + 1.0 + 1.0) / 3.5)
    assert {"image_encoder", "lpips"} <= make_reward(spec).needs
    with pytest.raises(ValueError, match="all 0"):
        make_reward({"type": "vision/chart_code", "attribute_weight": 0, "visual_weight": 0})
    alone = make_reward({"type": "vision/chart_code", "visual_weight": 0})
    with pytest.raises(ValueError, match="of weight 0"):
        alone.worth({"ssim": 0.2})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """`scoring` with a tiny DINOv2 and an LPIPS of two channels, as runs load them."""
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dino")
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    state = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Dinov2Model(config).save_pretrained(folder)
        for place, side in ((0, 11), (3, 5), (6, 3), (8, 3), (10, 3)):
            state[f"features.{place}.weight"] = torch.randn(2, 2 if place else 3, side, side)
            state[f"features.{place}.bias"] = torch.zeros(2)
    state |= {f"lin{layer}.model.1.weight": torch.full((1, 2, 1, 1), 0.02) for layer in range(5)}
    sizes = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    BitImageProcessorPil(**sizes).save_pretrained(folder)
    torch.save(state, folder / "lpips.pth")
    return {
        "image_encoder": {"path": str(folder)},
        "lpips": {"weights": [str(folder / "lpips.pth")]},
    }


@pytest.fixture(scope="module")
def _walls():
    try:
        Sandbox().open()
    except MissingService as error:
        pytest.skip(str(error))


HEAD = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40">'
RED = f'{HEAD}<rect x="10" y="10" width="20" height="20" fill="#ff0000"/></svg>'
PLOT = """```python
import matplotlib.pyplot as plt
plt.figure(figsize=(3, 2))
plt.bar([1, 2], [%s])
```"""


def test_workers_import_no_torch():
    code = (
        "import sys, trainer.worker, trainer.rewards.vision.svg, trainer.rewards.vision.chart_code,"
        "trainer.rewards.vision.ssim; print(*sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


async def compared(make_reward, spec, group, models):
    config = Scoring(workers=1, **models)
    async with Scorer.open(make_reward(spec), config, seed=0, total_steps=1) as scorer:
        return await scorer.score_group(group, step=1)


@pytest.mark.usefixtures("_walls")
@pytest.mark.parametrize("gold", [None, RED])
async def test_drawings_are_rendered_in_a_worker_and_seen_here(
    make_reward, make_replies, models, gold
):
    """Against a picture, and against the row's own SVG, which the worker draws too."""
    pytest.importorskip("resvg_py")
    image = Image.new("RGB", (40, 40), "white")
    ImageDraw.Draw(image).rectangle((10, 10, 29, 29), fill="red")
    messages = ({"role": "user", "content": [{"type": "image", "image": image}]},)
    meta = {} if gold is None else {"svg": gold}
    replies = [RED, RED.replace('x="10"', 'x="2"'), f"{HEAD}</svg>", "none", RED]
    group = make_replies(replies, messages=messages, meta=meta)
    spec = {"type": "vision/svg", "embedding_weight": 2.0, "lpips_weight": 1.0, "rendered": 0.2}
    spec |= {"sandbox": {"seconds": 4, "output_kb": 8192}}
    same, moved, empty, none, again = await compared(make_reward, spec, group, models)
    assert same.value == pytest.approx(1.0, abs=1e-3)
    assert same == again
    assert 0.2 < moved.value < same.value
    seen = moved.parts["ssim"] + 2 * moved.parts["embedding"] + moved.parts["lpips"]
    assert moved.value == pytest.approx(0.2 + 0.8 * seen / 4)
    assert moved.parts["embedding"] < 1 > moved.parts["lpips"]
    assert (empty.value, empty.reason) == (0.0, "the picture is of one colour")
    assert (none.value, none.status) == (0.0, ScoreStatus.UNPARSABLE)
    assert not any(one.artifacts for one in (same, moved, empty, none))
    if gold:
        assert (same.value, same.parts["embedding"], same.parts["lpips"]) == (1.0, 1.0, 1.0)


@pytest.mark.usefixtures("_walls")
async def test_charts_are_drawn_in_a_worker_and_seen_here(make_reward, make_replies, models):
    spec = {"type": "vision/chart_code", "embedding_weight": 0.5, "lpips_weight": 0.5}
    spec |= {"sandbox": {"seconds": 20, "memory_mb": 3072, "output_kb": 8192}}
    replies = [PLOT % "3, 5", PLOT % "5, 1", PLOT % "broken"]
    group = make_replies(replies, answer=PLOT % "3, 5")
    same, other, broken = await compared(make_reward, spec, group, models)
    assert same.value == pytest.approx(1.0)
    assert (same.parts["embedding"], same.parts["lpips"]) == (1.0, 1.0)
    weights = {"attributes": 0.5, "ssim": 0.5, "embedding": 0.5, "lpips": 0.5}
    assert other.value == pytest.approx(sum(w * other.parts[k] for k, w in weights.items()) / 2)
    assert other.value < 0.99
    assert broken.value == 0.0
