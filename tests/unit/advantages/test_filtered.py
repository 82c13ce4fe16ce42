"""The advantage filter of StableReinforce: three sigma."""

from __future__ import annotations

import pytest

from trainer.advantages.base import Advantage


def test_the_cards_numbers(make_batch):
    batch = make_batch([[0, 1]] * 12, [0.0] * 11 + [30.0], group=list(range(12)))
    inner = {"type": "reinforce_pp", "unbiased": False}
    z = Advantage.model_validate(inner)(batch)[:, 1].tolist()
    assert z == pytest.approx([-0.301511] * 11 + [3.316625], abs=1e-6)
    kept = Advantage.model_validate({"type": "filtered", "advantage": inner})(batch)
    assert kept[:, 1].tolist() == pytest.approx([-0.301511] * 11 + [0], abs=1e-6)
    assert not kept[:, 0].any()
    wide = {"type": "filtered", "advantage": inner, "sigmas": 4}
    assert Advantage.model_validate(wide)(batch)[-1, 1] == pytest.approx(3.316625, abs=1e-6)


def test_equal_returns_and_small_groups(make_batch):
    same = make_batch([[1]] * 4, [1.0] * 4)
    assert not Advantage.model_validate("filtered")(same).any()
    ten = make_batch([[1]] * 10, [0.0] * 9 + [1.0])
    grouped = Advantage.model_validate({"type": "filtered", "advantage": "grpo"})
    assert grouped(ten)[-1, 0] == pytest.approx(9 / 10**0.5, abs=1e-4)
    eleven = make_batch([[1]] * 11, [0.0] * 10 + [1.0])
    assert grouped(eleven)[-1, 0] == 0


def test_it_asks_for_what_the_inner_one_needs():
    make = Advantage.model_validate
    assert make("filtered").crosses_groups
    grouped = make({"type": "filtered", "advantage": "grpo"})
    assert not grouped.crosses_groups
    assert not grouped.needs
    critic = make({"type": "filtered", "advantage": "gae"})
    assert critic.needs == make("gae").needs
    assert make({"type": "filtered", "advantage": "remax"}).needs_baseline
