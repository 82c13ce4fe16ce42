"""Numbers of the PPO and VAPO worked examples."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from trainer.advantages.base import Advantage
from trainer.advantages.gae import Gae


@pytest.fixture
def tool_row(make_batch):
    """Four tokens, the third of a tool."""
    values = torch.tensor([[0.2, 0.4, 0.9, 0.6]])
    return make_batch([[1, 1, 0, 1]], [1.0], values=values)


def test_by_hand(tool_row) -> None:
    gae = Gae(lam=0.95, whiten=False)
    assert gae(tool_row)[0].tolist() == pytest.approx([0.751, 0.58, 0, 0.4], abs=1e-6)
    assert gae.returns(tool_row)[0].tolist() == pytest.approx([0.951, 0.98, 0, 1], abs=1e-6)


def test_whitening_changes_the_advantages_and_not_the_critics_target(tool_row) -> None:
    gae = Gae(lam=0.95)
    expected = [0.991344, 0.017092, 0, -1.008436]
    assert gae(tool_row)[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert gae.returns(tool_row).equal(Gae(lam=0.95, whiten=False).returns(tool_row))


def test_a_lam_of_its_own_for_the_critic(tool_row) -> None:
    gae = Gae(lam=0.0, lam_critic=1.0, whiten=False)
    assert gae.returns(tool_row)[0].tolist() == pytest.approx([1, 1, 0, 1])
    assert gae(tool_row)[0].tolist() == pytest.approx([0.2, 0.2, 0, 0.4])


@pytest.mark.parametrize(
    ("length", "lam"), [(10, 0.0), (20, 0.0), (40, 0.5), (400, 0.95), (4000, 0.995)]
)
def test_lam_grows_with_the_length(make_batch, length: int, lam: float) -> None:
    batch = make_batch([[0] + [1] * length + [0]], [1.0])
    found = Gae(alpha=0.05)._lam(batch)
    assert torch.as_tensor(found).tolist() == pytest.approx([lam])


def test_length_adaptive_by_hand(make_batch) -> None:
    batch = make_batch([[1] * 40], [1.0], values=torch.full((1, 40), 0.5))
    gae = Gae(alpha=0.05, lam_critic=1.0, whiten=False)
    found = gae(batch)[0].tolist()
    assert found[-3:] == pytest.approx([0.125, 0.25, 0.5])
    assert found[0] == pytest.approx(9.09495e-13, rel=1e-5)
    assert gae.returns(batch)[0].tolist() == pytest.approx([1.0] * 40)


def test_rows_without_actions_and_batches_without_signal(make_batch) -> None:
    values = torch.zeros(2, 3)
    batch = make_batch([[0, 0, 0], [0, 1, 1]], [1.0, 0.0], values=values)
    assert not Gae()(batch).any()
    assert not Gae().returns(batch).any()


def test_only_whitening_looks_at_other_rows() -> None:
    assert Gae().crosses_groups
    assert not Gae(whiten=False).crosses_groups


def test_failures(make_batch) -> None:
    with pytest.raises(ValueError, match=r"gae needs values.*value head"):
        Gae()(make_batch([[1]], [1.0]))
    with pytest.raises(ValidationError, match="lam"):
        Gae(lam=1.5)
    with pytest.raises(ValidationError, match="alpha"):
        Gae(alpha=0)


def test_it_is_found_by_name() -> None:
    made = Advantage.model_validate({"type": "gae", "lam": 0.95, "alpha": 0.05})
    assert made == Gae(lam=0.95, alpha=0.05)
    assert "values" in made.needs
