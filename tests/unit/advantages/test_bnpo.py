"""Numbers of the worked example of BNPO (arXiv:2506.02864)."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch.distributions import Beta

from trainer.advantages.base import Advantage
from trainer.advantages.bnpo import Bnpo

RATES = [0.25, 0.5, 0.75, 0.0]
RETURNS = [float(i < 4 * p) for p in RATES for i in range(4)]
GROUP = [g for g in range(4) for _ in range(4)]


def by_row(found: torch.Tensor) -> list[float]:
    return found[:, 0].tolist()


def test_by_hand(make_batch) -> None:
    found = by_row(Bnpo()(make_batch([[1, 0]] * 16, RETURNS, GROUP)))
    assert found[:4] == pytest.approx([0.67298, -0.224327, -0.224327, -0.224327], abs=1e-6)
    assert found[4:6] == pytest.approx([0.894874 / 2] * 2, abs=1e-6)
    assert found[8] == pytest.approx(1.0061 / 4, abs=1e-5)
    assert found[12:] == [0.0] * 4


def test_the_density_is_that_of_a_beta(make_batch) -> None:
    found = by_row(Bnpo()(make_batch([[1]] * 16, RETURNS, GROUP)))
    density = Beta(torch.tensor(1.15625), torch.tensor(1.260417)).log_prob(torch.tensor(0.25)).exp()
    assert found[0] == pytest.approx(0.75 / density.item(), rel=1e-5)


def test_other_scales_of_reward(make_batch) -> None:
    plain = Bnpo()(make_batch([[1]] * 16, RETURNS, GROUP))
    signed = make_batch([[1]] * 16, [2 * r - 1 for r in RETURNS], GROUP)
    torch.testing.assert_close(Bnpo(low=-1)(signed), plain)


def test_a_certain_group_is_exactly_zero_whatever_its_weight(make_batch) -> None:
    """Three thirds are not one to the last bit."""
    values = [1.0] * 3 + [1.0, 0.0, 0.0]
    found = by_row(Bnpo()(make_batch([[1]] * 6, values, [0] * 3 + [1] * 3)))
    assert found[:3] == [0.0] * 3
    assert all(map(math.isfinite, found))


@pytest.mark.parametrize("group", [[0, 0, 0, 0], [0, 0, 1, 1]])
def test_one_rate_is_plain_centring(make_batch, group) -> None:
    batch = make_batch([[1]] * 4, [1.0, 0.0, 1.0, 0.0], group)
    assert by_row(Bnpo()(batch)) == [0.5, -0.5, 0.5, -0.5]


def test_rates_further_apart_than_any_beta(make_batch) -> None:
    """k < 0: both parameters stay at their floor, and every weight is 1."""
    batch = make_batch([[1]] * 12, [1.0] * 3 + [0.0] + [0.0] * 4 + [1.0] * 4, GROUP[:12])
    assert by_row(Bnpo()(batch))[:4] == pytest.approx([0.25, 0.25, 0.25, -0.75])


def test_one_bnpo_per_part(make_batch) -> None:
    accuracy = torch.tensor(RETURNS)
    parts = {"accuracy": accuracy, "format": 1 - accuracy}
    batch = make_batch([[1]] * 16, [9.0] * 16, GROUP, parts=parts)
    one = [by_row(Bnpo(parts=(name,))(batch)) for name in parts]
    both = by_row(Bnpo(parts=("accuracy", "format"))(batch))
    assert both == pytest.approx([a + b for a, b in zip(*one, strict=True)], abs=1e-6)
    assert one[0][0] == pytest.approx(0.67298, abs=1e-6)
    accuracy[0] = math.nan
    assert Bnpo(parts=("accuracy",))(batch)[0].item() == 0.0


def test_failures(make_batch) -> None:
    with pytest.raises(ValueError, match=r"rewards in \[0, 1\].*found -1 to 1.*advantage.low"):
        Bnpo()(make_batch([[1]] * 2, [1.0, -1.0]))
    with pytest.raises(ValueError, match=r"no part answer in the scores; they have: format"):
        Bnpo(parts=("answer",))(make_batch([[1]], parts={"format": torch.zeros(1)}))
    with pytest.raises(ValidationError, match=r"low 1.0 must be under high 1.0"):
        Bnpo(low=1.0)


def test_it_is_found_by_name() -> None:
    assert Advantage.model_validate({"type": "bnpo", "low": -1}) == Bnpo(low=-1)
    assert Bnpo.crosses_groups
