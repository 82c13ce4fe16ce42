"""Columns of token numbers and pictures, packed and back."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainer.ops.traces import pack, pack_ends, picture, unpack, unpack_ends


@given(st.lists(st.floats(-1e6, 1e6), max_size=60))
def test_a_packed_number_is_off_by_half_a_unit_at_most(values):
    back = unpack(pack(values), len(values))
    unit = max(map(abs, values), default=0.0) / 32767
    # what is written of the scale and of a constant has 6 digits or more
    slack = 1e-30 + max(map(abs, values), default=0.0) * 1e-5
    assert np.abs(np.array(back) - np.array(values)).max(initial=0) <= unit / 2 + slack


def test_equal_values_are_one_number():
    assert pack([0.25] * 500) == 0.25
    assert pack([]) == 0.0
    assert unpack(0.25, 3) == [0.25] * 3


def test_values_that_are_not_finite_stay_so():
    packed = pack([1.0, math.nan, -1.0, -math.inf])
    back = unpack(packed, 4)
    assert back[0] == pytest.approx(1.0)
    assert back[2] == pytest.approx(-1.0)
    assert math.isnan(back[1])
    assert math.isnan(back[3])
    assert all(map(math.isnan, unpack(pack([math.nan] * 2), 2)))


@given(st.lists(st.integers(0, 600), max_size=30))
def test_ends_of_tokens_of_any_length(lengths):
    ends = np.cumsum(lengths).tolist()
    assert unpack_ends(pack_ends(ends)) == ends


def test_a_picture_is_shrunk_and_known_by_its_pixels():
    wide = Image.new("RGB", (900, 300), (200, 30, 30))
    one = picture(wide, 448)
    stored = Image.open(io.BytesIO(base64.b64decode(one["data"])))
    assert (one["width"], one["height"]) == (900, 300)
    assert stored.size == (448, 149)
    assert wide.size == (900, 300)
    assert picture(wide.copy(), 448)["hash"] == one["hash"]
    wide.putpixel((0, 0), (0, 0, 255))
    small = Image.new("RGBA", (40, 30), (1, 2, 3, 255))
    kept = Image.open(io.BytesIO(base64.b64decode(picture(small, 448)["data"])))
    assert kept.size == (40, 30)
    assert kept.convert("RGB").getpixel((7, 7)) == (1, 2, 3)
