from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from trainer.ops.spaces import Extents, Resize, image_size, inside
from trainer.types import Prompt, Rollout

SIDES = st.integers(20, 4000)


def prompt(size=None, **meta):
    image = {"type": "image", "image": Image.new("RGB", size)} if size else {"type": "text"}
    return Prompt("p", ({"role": "user", "content": [image]},), meta=meta)


@given(SIDES, SIDES, st.sampled_from([(3136, 12845056), (3136, 401408), (200704, 1003520)]))
def test_it_resizes_as_the_processor_does(width, height, limits):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    low, high = limits
    expected = smart_resize(height, width, factor=28, min_pixels=low, max_pixels=high)
    resize = Resize(min_pixels=low, max_pixels=high)
    assert resize.size(width, height) == expected[::-1]


def test_spaces_of_one_image():
    seen = Rollout(meta={"image_sizes": [[504, 252]]})
    extents = Extents(prompt((1000, 500)), seen, grid=14)
    assert extents.of("pixels") == (1000, 500)
    assert extents.of("resized") == (504, 252)
    assert extents.factors("unit", "thousand") == (1000, 1000)
    assert extents.factors("pixels", "unit") == (1 / 1000, 1 / 500)
    assert extents.factors("grid", "resized") == (36, 18)
    assert extents.factors("resized", "resized") == (1, 1)
    assert Extents(prompt(), None).factors("pixels", "pixels") == (1, 1)


def test_the_size_by_the_settings_where_none_was_recorded():
    extents = Extents(prompt(width=1000, height=600), None, resize=Resize(max_pixels=401408))
    assert extents.of("resized") == (812, 476)
    with pytest.raises(ValueError, match="set `resize`"):
        Extents(prompt((9, 9)), Rollout()).of("resized")


@pytest.mark.parametrize(
    ("size", "columns", "reason"),
    [
        (None, {}, "unknown; add the columns"),
        ((10, 20), {"width": 20, "height": 10}, "say 20 x 10, the image is 10 x 20"),
        (None, {"width": "wide", "height": 3}, "must be positive numbers, got 'wide'"),
        (None, {"width": -4, "height": 3}, "must be positive"),
        (None, {"width": float("nan"), "height": 3}, "must be positive"),
    ],
)
def test_wrong_sizes_are_named(size, columns, reason):
    with pytest.raises(ValueError, match=reason):
        image_size(prompt(size, **columns))


def test_unknown_space_and_limits():
    with pytest.raises(ValueError, match="unknown space 'metres'; one of: pixels, resized"):
        Extents(prompt((2, 2))).of("metres")
    with pytest.raises(ValidationError, match="is above max_pixels"):
        Resize(min_pixels=5, max_pixels=4)
    with pytest.raises(ValueError, match="ratio above 200"):
        Resize().size(1, 300)


def test_inside():
    assert inside((0, 0, 10, 20), (10, 20))
    assert not inside((0, 0, 10.1, 20), (10, 20))
    assert not inside((-1, 3), (10, 20))
