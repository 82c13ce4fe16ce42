from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from trainer.ops import image_similarity as alike
from trainer.types import ScoreStatus

X = np.array([[((16 * i + j) % 17) / 16 for j in range(16)] for i in range(16)])
Z = np.minimum(X + 0.1, 1)


def test_the_cards_numbers():
    assert alike.ssim(X, X.T, windowed=False) == pytest.approx(-0.641655, abs=1e-6)
    assert alike.ssim(X, X.T) == pytest.approx(-0.357151, abs=1e-6)
    assert alike.ssim(X, Z, windowed=False) == pytest.approx(0.982561, abs=1e-6)
    assert alike.ssim(X, Z) == pytest.approx(0.972875, abs=1e-6)
    assert alike.mse(X, Z) == pytest.approx(0.009057, abs=1e-6)
    assert alike.psnr(X, Z) == pytest.approx(20.430153, abs=1e-6)
    assert alike.ssim(X, X) == pytest.approx(1)
    assert alike.psnr(X, X) == 50
    flat = np.full((4, 4), 0.2), np.full((4, 4), 0.8)
    assert alike.ssim(*flat) == pytest.approx(0.470666, abs=1e-6)
    assert alike.is_blank(flat[0])
    assert not alike.is_blank(X)


def picture(array):
    return Image.fromarray((array * 255).round().astype(np.uint8)).convert("RGB")


@pytest.fixture
def drawn(grade, make_replies, make_reward):
    """Scores of pictures against X."""

    def run(images, **fields):
        messages = ({"role": "user", "content": [{"type": "image", "image": picture(X)}]},)
        group = make_replies(["x"] * len(images), messages=messages)
        for rollout, image in zip(group.rollouts, images, strict=True):
            if image is not None:
                rollout.artifacts["image"] = image
        reward = make_reward({"type": "vision/ssim"} | fields)
        return [reward.grade(rollout, group.prompt) for rollout in group.rollouts]

    return run


def test_the_reward(drawn):
    same, other, white, missing = drawn(
        [picture(X), picture(Z), Image.new("RGB", (9, 9), "white"), None]
    )
    assert same == pytest.approx(1)
    assert 0.95 < other < 1
    assert white.value == 0
    assert missing.status is ScoreStatus.UNPARSABLE
    assert drawn([picture(X.T)]) == [0.0]
    (pale,) = drawn([Image.new("RGB", (16, 16), "white")], blank=True, against_white=True)
    assert pale == pytest.approx(0)


def test_transparent_is_white():
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert alike.as_array(clear).min() == 1
    assert alike.as_array(clear, (4, 2)).shape == (2, 4, 3)
