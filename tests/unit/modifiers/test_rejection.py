"""Numbers of the card base-tis, by verl's definitions of k1, k2 and k3."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from trainer.modifiers.base import Modifier
from trainer.modifiers.rejection import Rejection
from trainer.modifiers.tis import Tis
from trainer.ops.across import Across
from trainer.types import Evaluation

LOG_RATIO = torch.tensor([[0.5, -0.2, 1.2], [-3.0, 0.1, 7.0]])
MASK = torch.tensor([[True, True, True], [True, True, False]])


def passes(**fields) -> list[list[int]]:
    return Rejection(**fields).passes(LOG_RATIO, MASK).int().tolist()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # k1 = -d: the geometric mean of engine / policy is 0.607 and 4.26
        ({}, [[1, 1, 1], [0, 0, 0]]),
        ({"high": 5.0, "low": 0.7}, [[0, 0, 0], [1, 1, 0]]),
        ({"aggregate": "sum"}, [[0, 0, 0], [0, 0, 0]]),
        ({"aggregate": "sum", "high": 5.0}, [[1, 1, 1], [0, 0, 0]]),
        ({"aggregate": "max", "high": 1.3}, [[1, 1, 1], [0, 0, 0]]),
        ({"level": "token"}, [[1, 1, 0], [0, 1, 0]]),
        ({"level": "token", "high": 25.0, "low": 0.7}, [[0, 1, 0], [1, 1, 0]]),
        # k2 = d^2 / 2 = 0.125, 0.02, 0.72 and 4.5, 0.005
        ({"statistic": "k2", "high": 0.3}, [[1, 1, 1], [0, 0, 0]]),
        ({"statistic": "k2", "high": 0.28}, [[0, 0, 0], [0, 0, 0]]),
        ({"statistic": "k2", "level": "token", "high": 0.1}, [[0, 1, 0], [0, 1, 0]]),
        # k3 = exp(d) - 1 - d = 0.148721, 0.018731, 1.120117 and 2.049787, 0.005171
        ({"statistic": "k3", "aggregate": "sum", "high": 1.2876}, [[1, 1, 1], [0, 0, 0]]),
        ({"statistic": "k3", "aggregate": "sum", "high": 1.2875}, [[0, 0, 0], [0, 0, 0]]),
        ({"statistic": "k3", "aggregate": "max", "high": 1.5}, [[1, 1, 1], [0, 0, 0]]),
        ({"statistic": "k3", "level": "token", "high": 1.5}, [[1, 1, 1], [0, 1, 0]]),
    ],
)
def test_statistics(fields: dict, expected: list[list[int]]) -> None:
    assert passes(**fields) == expected


def test_what_fails_leaves_the_mask_and_is_reported(make_batch) -> None:
    batch = make_batch(
        MASK.int().tolist(),
        old_logprobs=LOG_RATIO - 2,
        sampled_logprobs=torch.full((2, 3), -2.0),
    )
    modifier = Rejection()
    ready = modifier.on_minibatch(batch, Across.alone())
    assert ready.mask.tolist() == [[True] * 3, [False] * 3]
    loss = torch.ones(2, 3)
    same, metrics = modifier.on_loss(loss, Evaluation(loss), ready)
    assert same is loss
    assert metrics["rejected_sequence_k1"][0, 0].item() == pytest.approx(0.4)


def test_several_must_all_pass(make_batch) -> None:
    batch = make_batch([[1, 1, 1], [1, 1, 0]], old_logprobs=LOG_RATIO)
    for modifier in (Rejection(level="token"), Rejection(statistic="k2", level="token", high=0.1)):
        batch = modifier.on_minibatch(batch, Across.alone())
    assert batch.mask.tolist() == [[False, True, False], [False, True, False]]


@pytest.mark.parametrize("aggregate", ["mean", "sum", "max"])
@pytest.mark.parametrize("statistic", ["k1", "k2", "k3"])
def test_odd_numbers(aggregate: str, statistic: str) -> None:
    d = torch.tensor([[900.0, -900.0], [5.0, 5.0]])
    mask = torch.tensor([[True, True], [False, False]])
    modifier = Rejection(statistic=statistic, aggregate=aggregate, high=1e300)
    assert modifier.passes(d, mask).tolist() == mask.tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"low": 3.0}, "low = 3 must be below high = 2"),
        ({"high": 0.9}, r"low = 1.11111 must be below high = 0\.9"),
        ({"statistic": "k2", "low": 0.1}, "k2 is never negative; give `high` alone"),
    ],
)
def test_wrong_settings_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Modifier.model_validate({"type": "rejection", **fields})


def test_it_goes_with_weights(make_batch) -> None:
    """`tis` then judges only what is left."""
    batch = make_batch([[1, 1, 1]], old_logprobs=LOG_RATIO[:1], sampled_logprobs=torch.zeros(1, 3))
    ready = Rejection(level="token").on_minibatch(batch, Across.alone())
    tis = Tis(mode="sequence_truncate", statistic="product", high=9)
    loss, _ = tis.on_loss(torch.ones(1, 3), Evaluation(torch.zeros(1, 3)), ready)
    assert loss[0].tolist() == pytest.approx([1.349859, 1.349859, 0.0])
