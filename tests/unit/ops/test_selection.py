from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
import torch

from trainer.ops.across import Across
from trainer.ops.selection import action_keys, largest

ALONE = Across.alone()


def place_keys(shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    keys = torch.arange(shape[0] * shape[1]).view(shape)
    return keys, keys


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
    found = largest(VALUES, place_keys((2, 3)), COUNTED, amount, ALONE)
    assert VALUES[found].tolist() == chosen


def test_a_token_that_two_rows_share_counts_once() -> None:
    """Three distinct actions, the first one in both rows: two of them are taken."""
    values = torch.tensor([[5.0, 1.0], [5.0, 3.0]])
    counted = torch.tensor([[0.5, 1.0], [0.5, 1.0]])
    keys = action_keys(torch.tensor([[7, 1], [7, 2]]), counted > 0, salt=3)
    assert largest(values, keys, counted, 2, ALONE).tolist() == [[True, False], [True, True]]
    assert largest(values, keys, counted, 1, ALONE).tolist() == [[True, False], [True, False]]


def test_ties_are_broken_by_both_keys() -> None:
    prefix, row = torch.tensor([[3, 1, 2, 1]]), torch.tensor([[0, 9, 0, 8]])
    for amount, chosen in ((1, [3]), (2, [1, 3]), (3, [1, 2, 3])):
        found = largest(torch.zeros(1, 4), (prefix, row), torch.ones(1, 4), amount, ALONE)
        assert found[0].nonzero()[:, 0].tolist() == chosen


def test_copies_are_counted_out() -> None:
    """Three rows alike: of the first token of each only two are taken."""
    tokens = torch.tensor([[7, 1], [7, 1], [7, 1]])
    ones = torch.ones(3, 2)
    found = largest(ones, action_keys(tokens, ones > 0, salt=3), ones, 2, ALONE)
    assert found.sum() == 2
    assert found[:, 0].sum() in (0, 2)


def test_nothing_to_choose_from() -> None:
    assert not largest(VALUES, place_keys((2, 3)), torch.zeros(2, 3), 1, ALONE).any()
    empty = torch.zeros(0, 3)
    assert largest(empty, (empty.long(), empty.long()), empty, 1, ALONE).shape == (0, 3)


class Together:
    """Processes one after the other: first what each says, then what each hears."""

    def __init__(self, said: list[Any]):
        self.said = said

    def talking(self) -> Across:
        return Across(torch.clone, lambda own: self.said.append(own) or [own], random.Random(0))

    def listening(self, rank: int) -> Across:
        return Across(torch.clone, lambda _: self.said, random.Random(0), rank)


@pytest.mark.parametrize("amount", [1, 4, 9, 16, 40])
@pytest.mark.parametrize("parts", [[0, 1, 6], [0, 3, 6], [0, 0, 6], [0, 2, 4, 6]])
def test_processes_choose_together(parts: list[int], amount: int) -> None:
    """Each process sees the same as one that holds all rows, whatever its share."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(6, 5, generator=generator).round(decimals=1)  # with ties
    tokens = torch.randint(0, 9, (6, 5), generator=generator)
    counted = (torch.rand(6, 5, generator=generator) > 0.3).float()
    keys = action_keys(tokens, counted > 0, salt=1)
    whole = largest(values, keys, counted, amount, ALONE)
    assert whole.sum() == min(amount, counted.sum())
    cuts = [slice(a, b) for a, b in pairwise(parts)]
    together = Together([])

    def own(cut: slice, across: Across) -> torch.Tensor:
        return largest(values[cut], (keys[0][cut], keys[1][cut]), counted[cut], amount, across)

    for cut in cuts:
        own(cut, together.talking())
    for rank, cut in enumerate(cuts):
        assert torch.equal(own(cut, together.listening(rank)), whole[cut])


def test_keys_depend_on_content_and_the_salt_alone() -> None:
    tokens = torch.tensor([[3, 4, 5], [3, 4, 6], [9, 4, 5]])
    mask = torch.tensor([[False, True, True]]).expand(3, 3)
    prefix, row = action_keys(tokens, mask, salt=11)
    assert torch.equal(prefix[0, :2], prefix[1, :2])
    assert len(set(prefix.flatten().tolist())) == 7
    assert len(set(row[:, 0].tolist())) == 3
    padded = torch.nn.functional.pad(tokens, (0, 4)), torch.nn.functional.pad(mask, (0, 4))
    assert torch.equal(action_keys(*padded, salt=11)[0][:, :3], prefix)
    assert torch.equal(action_keys(*padded, salt=11)[1][:, :3], row)
    assert not (action_keys(tokens, mask, salt=12)[0] == prefix).any()


def test_keys_are_as_good_as_random() -> None:
    """Draws of 1 in 10 from 20 000 near-equal actions: the share of each decile is even."""
    tokens = torch.arange(20_000)[:, None]
    for salt in range(3):
        order = action_keys(tokens, tokens >= 0, salt)[0].flatten().argsort()
        counts = torch.histc((order[:2000]).float(), bins=10, min=0, max=20_000)
        assert counts.min() > 150  # 200 expected, deviation 13
        assert counts.max() < 250
