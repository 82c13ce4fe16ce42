"""Bands of quantiles worked out by hand; the threshold is `torch.quantile`'s, as in TRL."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from trainer.modifiers.base import Modifier
from trainer.modifiers.token_entropy_mask import TokenEntropyMask
from trainer.ops.across import Across
from trainer.types import Evaluation

ENTROPY = torch.tensor([[0.5, 0.1, 2.0, 0.4, 0.9], [0.3, 1.5, 0.2, 0.8, 9.0]])
MASK = [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]


@pytest.fixture
def batch(make_batch):
    tokens = torch.arange(10).view(2, 5)
    return make_batch(MASK, tokens=tokens, extra={"old_entropy": ENTROPY})


def kept(batch, **fields) -> list[float]:
    modifier = TokenEntropyMask(**fields)
    ready = modifier.on_minibatch(batch, Across.alone())
    loss, metrics = modifier.on_loss(torch.ones(2, 5), Evaluation(torch.zeros(2, 5)), ready)
    assert torch.equal(loss, metrics["entropy_kept"])
    return sorted(ENTROPY[loss.bool()].tolist())


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.8, 1.0, [1.5, 2.0]),  # the threshold is 1.02
        (0.0, 0.2, [0.1, 0.2]),
        (0.25, 0.75, [0.3, 0.4, 0.5, 0.8]),
        (0.0, 1.0, sorted(ENTROPY.flatten().tolist()[:-1])),
        (0.99, 1.0, [2.0]),
    ],
)
def test_bands(batch, low: float, high: float, expected: list[float]) -> None:
    assert kept(batch, low=low, high=high) == pytest.approx(expected)


def test_bands_meet_without_overlap(batch) -> None:
    parts = [kept(batch, low=low, high=low + 0.25) for low in (0, 0.25, 0.5, 0.75)]
    assert sorted(h for part in parts for h in part) == sorted(ENTROPY.flatten().tolist()[:-1])


@pytest.mark.parametrize("quantile", [0.1, 0.3, 0.5, 0.8, 0.9])
@pytest.mark.parametrize("rows", [3, 8])
def test_it_is_torch_s_quantile(make_batch, quantile: float, rows: int) -> None:
    entropy = torch.rand(rows, 7, generator=torch.Generator().manual_seed(rows))
    mask = torch.arange(7) < torch.arange(1, rows + 1)[:, None]
    batch = make_batch(
        mask.int().tolist(),
        tokens=torch.arange(rows * 7).view(rows, 7),
        extra={"old_entropy": entropy},
    )
    ready = TokenEntropyMask(low=quantile).on_minibatch(batch, Across.alone())
    expected = (entropy >= torch.quantile(entropy[mask], quantile)) & mask
    assert torch.equal(ready.extra["entropy_kept"].bool(), expected)


def test_denominators_shrink_only_on_request(batch) -> None:
    ready = TokenEntropyMask().on_minibatch(batch, Across.alone())
    assert torch.equal(ready.mask, batch.mask)
    ready = TokenEntropyMask(renormalize=True).on_minibatch(batch, Across.alone())
    assert ready.mask.sum() == 2


def test_no_action_at_all(make_batch) -> None:
    batch = make_batch([[0, 0]], extra={"old_entropy": torch.zeros(1, 2)})
    ready = TokenEntropyMask(low=0.2, high=0.7).on_minibatch(batch, Across.alone())
    assert not ready.extra["entropy_kept"].any()


def test_its_settings() -> None:
    assert TokenEntropyMask.scales_loss
    assert not TokenEntropyMask().changes_loss
    assert TokenEntropyMask().needs == {"old_entropy"}
    with pytest.raises(ValidationError, match=r"low = 0.8 must be below high = 0\.2"):
        Modifier.model_validate({"type": "token_entropy_mask", "high": 0.2})
