from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from trainer.ops.ramp import Ramp, at_step


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("linear", [1, 1, 0.6, 0.2, 0.2]),
        ("cosine", [1, 1, 0.6, 0.2, 0.2]),
        ("exp", [1, 1, math.sqrt(0.2), 0.2, 0.2]),
        ("step", [1, 1, 1, 0.2, 0.2]),
    ],
)
def test_shapes(shape, values):
    ramp = Ramp(first=1, last=0.2, begin=0.1, until=50, shape=shape)
    assert [ramp.at(step, 100) for step in (0, 10, 30, 50, 99)] == pytest.approx(values)


def test_cosine_is_half_a_wave_and_decay_has_no_end():
    cosine = Ramp(first=0, last=1, until=1.0, shape="cosine")
    assert cosine.at(25, 100) == pytest.approx((1 - math.cos(math.pi / 4)) / 2)
    decay = Ramp(first=0.3, last=0, until=1500, shape="decay")
    assert decay.at(600, 9) == pytest.approx(0.3 * math.exp(-0.4))


def test_a_number_is_constant():
    constant = Ramp.model_validate(0.5)
    assert [constant.at(step, 10) for step in (0, 5, 10)] == [0.5] * 3
    assert Ramp.model_validate(constant.model_dump()) == constant


def test_steps_and_shares():
    assert [at_step(p, 200) for p in (1500, 0.5, 1.0, 1, 0)] == [1500, 100, 200, 1, 0]
    with pytest.raises(ValidationError, match="needs first and last above 0"):
        Ramp(first=1, last=0, shape="exp")
