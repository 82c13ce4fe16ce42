"""After the card base-vapo: L + mu sum(-logp over correct tokens) / their number."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from trainer.modifiers.base import Modifier
from trainer.modifiers.positive_nll import PositiveNll
from trainer.ops.across import Across
from trainer.ops.aggregation import coefficients
from trainer.types import Evaluation

LOGPROBS = torch.tensor([[-1.0, -2.0, -3.0], [-7.0, -7.0, 0.0], [-4.0, 0.0, 0.0]])
MASK = [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
MODES = ["token_mean", "seq_mean_token_mean", "seq_mean_token_sum_norm", "token_sum_norm"]


def added(batch, aggregation="token_mean", across=None, **fields) -> tuple[float, torch.Tensor]:
    """What comes on top of the number that the learner makes of a loss of 0, and its gradient."""
    modifier = PositiveNll(**fields)
    ready = modifier.on_minibatch(batch, across or Across.alone())
    scale = coefficients(ready.mask, ready.weight, aggregation, length_norm=50)
    ready = ready.with_(extra=ready.extra | {"scale": scale})
    logprobs = LOGPROBS.clone().requires_grad_()
    per_action, _ = modifier.on_loss(torch.zeros(3, 3), Evaluation(logprobs), ready)
    total = (per_action * scale).sum()
    return total.item(), torch.autograd.grad(total, logprobs)[0]


@pytest.mark.parametrize("aggregation", MODES)
@pytest.mark.parametrize("returns", [[1.0, 0.0, 1.0], [1.0, -1.0, 1.0]])
def test_its_own_denominator(make_batch, aggregation: str, returns: list[float]) -> None:
    """Rows 0 and 2 are correct: four tokens, whatever the loss divides by."""
    total, gradient = added(make_batch(MASK, returns), aggregation)
    assert total == pytest.approx(0.1 * (1 + 2 + 3 + 4) / 4)
    expected = torch.tensor([[-0.025] * 3, [0.0] * 3, [-0.025, 0.0, 0.0]])
    assert_close(gradient, expected, atol=1e-7, rtol=0)


def test_a_component_may_say_what_is_correct(make_batch) -> None:
    parts = {"accuracy": torch.tensor([0.0, float("nan"), 0.8])}
    batch = make_batch(MASK, [1.0, 1.0, 1.0], parts=parts)
    assert added(batch, part="accuracy")[0] == pytest.approx(0.1 * 4)
    assert added(batch, part="accuracy", threshold=0.9)[0] == 0
    with pytest.raises(ValueError, match=r"'accurracy' is no part of the reward.*: accuracy"):
        added(batch, part="accurracy")


def test_nothing_is_correct(make_batch) -> None:
    total, gradient = added(make_batch(MASK, [0.0, 0.2, 0.4]))
    assert total == 0
    assert not gradient.any()


def test_the_count_is_over_all_processes(make_batch) -> None:
    """Another process has six correct tokens."""
    across = Across(lambda own: own + 6, lambda value: [value], Across.alone().random)
    assert added(make_batch(MASK, [1.0, 0.0, 1.0]), across=across)[0] == pytest.approx(0.1)


def test_a_shared_token_counts_once(make_batch) -> None:
    weight = torch.tensor([[0.5, 1.0, 1.0], [1.0, 1.0, 1.0], [0.5, 1.0, 1.0]])
    total, _ = added(make_batch(MASK, [1.0, 0.0, 1.0], weight=weight), coef=1.0)
    assert total == pytest.approx((0.5 * 1 + 2 + 3 + 0.5 * 4) / 3)


def test_rows_without_advantage_learn_from_it() -> None:
    assert PositiveNll().changes_loss
    assert not PositiveNll(coef=0).changes_loss
    assert Modifier.model_validate("positive_nll") == PositiveNll(coef=0.1, threshold=0.5)
