from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainer.ops.selection import action_keys, largest


def alone(value: Any) -> list[Any]:
    return [value]


def noting(sent: list[Any]) -> Callable[[Any], list[Any]]:
    return lambda value: sent.append(value) or [value]


def giving(sent: list[Any]) -> Callable[[Any], list[Any]]:
    return lambda _: sent


def distinct(shape: tuple[int, int]) -> torch.Tensor:
    return torch.arange(shape[0] * shape[1]).view(shape)


VALUES = torch.tensor([[5.0, 1.0, 3.0], [4.0, 2.0, 9.0]])
COUNTED = torch.tensor([[1.0, 1, 1], [1, 1, 0]])


@pytest.mark.parametrize(
    ("amount", "chosen"),
    [
        (0, []),
        (1, [5.0]),
        (2, [5.0, 4.0]),
        (4, [5.0, 3.0, 4.0, 2.0]),
        (5, [5.0, 1.0, 3.0, 4.0, 2.0]),
        (99, [5.0, 1.0, 3.0, 4.0, 2.0]),
    ],
)
def test_the_largest_of_what_counts(amount: float, chosen: list[float]) -> None:
    found = largest(VALUES, distinct((2, 3)), COUNTED, amount, alone)
    assert VALUES[found].tolist() == chosen


def test_a_token_that_two_rows_share_counts_once() -> None:
    """Three distinct actions, the first one in both rows: two of them are taken."""
    values = torch.tensor([[5.0, 1.0], [5.0, 3.0]])
    counted = torch.tensor([[0.5, 1.0], [0.5, 1.0]])
    keys = action_keys(torch.tensor([[7, 1], [7, 2]]), salt=3)
    assert largest(values, keys, counted, 2, alone).tolist() == [[True, False], [True, True]]
    assert largest(values, keys, counted, 1, alone).tolist() == [[True, False], [True, False]]


def test_ties_are_broken_by_key() -> None:
    keys = torch.tensor([[3, 1, 2]])
    found = largest(torch.zeros(1, 3), keys, torch.ones(1, 3), 2, alone)
    assert found.tolist() == [[False, True, True]]


def test_nothing_to_choose_from() -> None:
    assert not largest(VALUES, distinct((2, 3)), torch.zeros(2, 3), 1, alone).any()
    empty = torch.zeros(0, 3)
    assert largest(empty, empty.long(), empty, 1, alone).shape == (0, 3)


def test_processes_choose_together() -> None:
    """Each process sees the same as one that holds all rows, whatever its share."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(6, 5, generator=generator).round(decimals=1)  # with ties
    keys = action_keys(torch.randint(0, 9, (6, 5), generator=generator), salt=1)
    counted = (torch.rand(6, 5, generator=generator) > 0.3).float()
    for amount in (1, 4, 9, 16):
        whole = largest(values, keys, counted, amount, alone)
        assert whole.sum() == min(amount, counted.sum())
        parts = [slice(0, 1), slice(1, 6)]
        sent: list[Any] = []
        for part in parts:
            largest(values[part], keys[part], counted[part], amount, noting(sent))
        for part in parts:
            own = largest(values[part], keys[part], counted[part], amount, giving(sent))
            assert torch.equal(own, whole[part])


def test_keys_depend_on_the_prefix_and_the_salt_alone() -> None:
    tokens = torch.tensor([[3, 4, 5], [3, 4, 6], [9, 4, 5]])
    keys = action_keys(tokens, salt=11)
    assert torch.equal(keys[0, :2], keys[1, :2])
    assert len(set(keys.flatten().tolist())) == 7
    assert torch.equal(action_keys(tokens[:, :2], salt=11), keys[:, :2])  # whatever the padding
    assert not (action_keys(tokens, salt=12) == keys).any()


def test_keys_are_as_good_as_random() -> None:
    """Draws of 1 in 10 from 20 000 near-equal actions: the share of each decile is even."""
    tokens = torch.arange(20_000)[:, None]
    for salt in range(3):
        order = action_keys(tokens, salt).flatten().argsort()
        counts = torch.histc((order[:2000]).float(), bins=10, min=0, max=20_000)
        assert counts.min() > 150  # 200 expected, deviation 13
        assert counts.max() < 250
