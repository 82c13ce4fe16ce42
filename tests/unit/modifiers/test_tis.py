"""Numbers of the card base-tis."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from trainer.modifiers.base import Modifier
from trainer.modifiers.tis import Tis
from trainer.types import Evaluation

LOG_RATIO = torch.tensor([[0.5, -0.2, 1.2], [-3.0, 0.1, 0.7]])
MASK = [[1, 1, 1], [1, 1, 0]]
RATIO = [[1.648721, 0.818731, 3.320117], [0.049787, 1.105171, 0.0]]
CARD = {
    "token truncate": ({"high": 2.0}, [[1.648721, 0.818731, 2.0], [0.049787, 1.105171, 0.0]]),
    "sequence truncate": (
        {"mode": "sequence_truncate", "statistic": "product"},
        [[2.0] * 3, [0.055023, 0.055023, 0.0]],
    ),
    "geometric truncate": (
        {"mode": "sequence_truncate"},
        [[1.648721] * 3, [0.234570, 0.234570, 0.0]],
    ),
    "TRL's sequence mask": (
        {"mode": "sequence_mask", "statistic": "product"},
        [[0.0] * 3, [0.055023, 0.055023, 0.0]],
    ),
    "TRL's sequence mask, wider": (
        {"mode": "sequence_mask", "statistic": "product", "high": 5.0},
        [[4.481689] * 3, [0.055023, 0.055023, 0.0]],
    ),
    "geometric mask": (
        {"mode": "sequence_mask", "low": 0.5, "high": 2.0},
        [RATIO[0], [0.0] * 3],
    ),
    "IcePop": (
        {"mode": "token_mask", "low": 0.5, "high": 5.0},
        [RATIO[0], [0.0, 1.105171, 0.0]],
    ),
}


def weighed(batch, logprobs=None, **fields):
    """The loss 1 everywhere, weighed."""
    logprobs = torch.zeros(batch.mask.shape) if logprobs is None else logprobs
    return Tis(**fields).on_loss(torch.ones(batch.mask.shape), Evaluation(logprobs), batch)


@pytest.fixture
def batch(make_batch):
    return make_batch(
        MASK,
        old_logprobs=LOG_RATIO - 2,
        sampled_logprobs=torch.full((2, 3), -2.0),
        advantages=torch.tensor([[1.0, 1, 1], [-1, -1, 0]]),
    )


@pytest.mark.parametrize("name", list(CARD))
def test_card(batch, name: str) -> None:
    fields, expected = CARD[name]
    loss, metrics = weighed(batch, **fields)
    assert_close(loss, torch.tensor(expected), atol=2e-6, rtol=0)
    assert_close(metrics["tis_weight"], loss)


def test_the_defaults_are_those_of_the_card(batch) -> None:
    assert Tis() == Tis(mode="token_truncate", statistic="geometric_mean")
    assert Tis().band == (0.0, 2.0)
    assert Tis(mode="token_mask").band == (0.5, 5.0)
    assert Tis(mode="sequence_mask").band == (0.5, 2.0)
    assert Tis(mode="sequence_mask", statistic="product").band == (0.0, 3.0)
    assert Tis(low=0.5, high=4).band == (0.5, 4.0)
    loss, metrics = weighed(batch, low=0.5)
    assert loss[1].tolist() == pytest.approx([0.5, 1.105171, 0.0])  # OpenRLHF clamps both ends
    assert metrics["tis_cut"].tolist() == [[0, 0, 1], [1, 0, 0]]


def test_without_old_logprobs_the_forward_s_own_stand_in_and_carry_no_gradient(make_batch) -> None:
    logprobs = (LOG_RATIO - 2).requires_grad_()
    batch = make_batch(MASK, sampled_logprobs=torch.full((2, 3), -2.0))
    loss, _ = Tis(high=9).on_loss(3 * logprobs, Evaluation(logprobs), batch)
    (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
    assert_close(gradient, 3 * torch.tensor(RATIO), atol=1e-5, rtol=0)


def test_no_weight_overflows_and_what_is_masked_never_counts(make_batch) -> None:
    old = torch.tensor([[500.0, 0.0, math.nan], [-500.0, -math.inf, math.inf]])
    batch = make_batch([[1, 1, 0], [1, 1, 0]], old_logprobs=old)
    for mode in ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"):
        for statistic in ("geometric_mean", "product"):
            fields = {"mode": mode, "statistic": statistic, "low": 0, "high": 1e30}
            loss, _ = weighed(batch, **fields)
            assert loss.isfinite().all(), fields
            assert loss.max() == pytest.approx(math.exp(20))


def test_a_row_without_actions_has_no_weight(make_batch) -> None:
    batch = make_batch([[0, 0], [1, 1]], old_logprobs=torch.ones(2, 2))
    for mode in ("token_mask", "sequence_mask", "sequence_truncate"):
        loss, metrics = weighed(batch, mode=mode, high=9)
        assert not loss[0].any()
        assert loss[1].all()
        assert not metrics["tis_cut"].any()


def test_normalized_weights_average_one(batch) -> None:
    """Over the whole batch: a micro-batch sees its share of the same numbers."""
    tis = Tis(batch_normalize=True)
    assert tis.needs == {"old_logprobs", "sampled_logprobs"}
    ready = tis.on_batch(batch, lambda total: total)
    loss, _ = tis.on_loss(torch.ones(2, 3), Evaluation(torch.zeros(2, 3)), ready)
    card = torch.tensor(CARD["token truncate"][1])
    assert_close(loss, card * 5 / card.sum(), atol=1e-5, rtol=0)

    rows = Tis(mode="sequence_truncate", statistic="product", batch_normalize=True)
    ready = rows.on_batch(batch, lambda total: total)
    assert ready.extra["tis_weight"][:, 0].tolist() == pytest.approx(
        [2 / 1.0275115, 0.055023 / 1.0275115], abs=1e-6
    )


def test_normalization_is_over_all_processes(batch) -> None:
    """Another process with as many actions, none of which weighs anything, halves the mean."""

    def with_the_other(total: torch.Tensor) -> torch.Tensor:
        return total + torch.tensor([0.0, 5.0])

    alone = Tis(batch_normalize=True).on_batch(batch, lambda total: total)
    both = Tis(batch_normalize=True).on_batch(batch, with_the_other)
    assert_close(both.extra["tis_weight"], 2 * alone.extra["tis_weight"])


def test_nothing_to_normalize(make_batch) -> None:
    batch = make_batch([[0, 0]], old_logprobs=torch.ones(1, 2))
    ready = Tis(batch_normalize=True).on_batch(batch, lambda total: total)
    assert not ready.extra["tis_weight"].any()


def test_off_policy_rows_with_a_negative_advantage_are_dropped(make_batch) -> None:
    """The policy finds rows 0 and 1 less likely than the engine did, by 0.6 on average."""
    logprobs = torch.tensor([[-1.0, -0.2], [-1.0, -0.2], [0.4, -0.1], [-1.0, -0.2]])
    advantages = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0], [0.0, -1.0]])
    batch = make_batch([[1, 1]] * 4, advantages=advantages)
    loss, metrics = weighed(batch, logprobs, mode="none", off_policy_delta=0.5)
    assert loss.tolist() == [[0, 0], [1, 1], [1, 1], [1, 0]]
    assert metrics["tis_off_policy"].tolist() == [[1, 1], [0, 0], [0, 0], [0, 1]]
    loss, _ = weighed(batch, logprobs, mode="none", off_policy_delta=0.7)
    assert (loss == 1).all()
    loss, metrics = weighed(batch, logprobs, off_policy_delta=0.5)  # and with weights
    assert loss[0].tolist() == [0, 0]
    assert loss[1].tolist() == pytest.approx([math.exp(-1), math.exp(-0.2)])
    assert {"tis_weight", "tis_cut", "tis_off_policy"} <= set(metrics)


def test_the_distance_is_measured(batch) -> None:
    """verl's k1 and k3 of KL(engine || policy), and chi2, with d = logp_old - logp_engine."""
    _, metrics = weighed(batch, mode="token_mask")
    d = LOG_RATIO.masked_fill(~batch.mask, 0.0)
    assert_close(metrics["mismatch_k1"], -d)
    assert_close(metrics["mismatch_k3"], d.exp() - 1 - d)
    assert_close(metrics["mismatch_chi2"], (2 * d).exp() - 1)


def test_what_it_tells_the_learner() -> None:
    assert Tis.scales_loss
    assert not Tis().changes_loss  # a zero stays a zero
    assert Tis().needs == {"sampled_logprobs"}
    assert Tis(mode="none", off_policy_delta=1).needs == frozenset()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"low": 2.0}, "low = 2 must be below high = 2"),
        ({"mode": "none"}, "does nothing without off_policy_delta"),
        ({"mode": "none", "off_policy_delta": 1, "high": 2}, "no meaning in mode: none"),
        ({"mode": "geometric"}, "token_truncate"),
    ],
)
def test_wrong_settings_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Modifier.model_validate({"type": "tis", **fields})
