"""Layout and attention of packed rows, against attention of every row alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from trainer.ops import packing
from trainer.ops.packing import PackedPlan, Path, pack, split


def path(tokens: list[int], family: object = 0, pinned: int = 0) -> Path:
    return Path(torch.tensor(tokens), family, pinned)


LONG = list(range(100, 112))

FORESTS = {
    "one row": [path([1, 2, 3])],
    "one token": [path([1])],
    "equal rows": [path([1, 2, 3]), path([1, 2, 3])],
    "a prefix of another": [path([1, 2]), path([1, 2, 3, 4]), path([1, 2, 5])],
    "nothing shared": [path([1, 2]), path([3, 4]), path([5])],
    "two families": [path([1, 2, 3], 0), path([1, 2, 3], 1), path([1, 2, 4], 0), path([9], 1)],
    "branches": [
        path([1, 2, 3, *LONG, 4]),
        path([1, 2, 3, *LONG, 5, *LONG, 6]),
        path([1, 2, 3, *LONG, 5, *LONG, 7, 8]),
        path([1, 2, 3, 9]),
        path([1, 2, 3, *LONG]),
    ],
    "branches too short to share": [path([1, 2, 3, 4, 5]), path([1, 2, 3, 4, 6]), path([1, 9])],
    "a long branch behind a short fork": [
        path([1, 7, 8]),
        path([1, 2, *LONG, 3]),
        path([1, 2, *LONG, 4, 4]),
    ],
    "lengths far apart": [path([1, *range(n, 2 * n)]) for n in (1, 2, 3, 40, 200, 210)],
}


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("paths", FORESTS.values(), ids=FORESTS)
def test_every_path_can_be_read_back(paths, share) -> None:
    packed = pack(paths, share=share)
    for index, one in zip(packed.index, paths, strict=True):
        assert packed.tokens[index].tolist() == one.tokens.tolist()
    used = torch.cat(packed.index).unique()
    assert used.tolist() == list(range(len(packed.tokens)))  # nothing is placed in vain
    numbers = [torch.arange(len(p.tokens)).expand(3, -1) for p in paths]
    arranged = packed.arrange(numbers)
    assert all(torch.equal(arranged[:, i], n) for i, n in zip(packed.index, numbers, strict=True))


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("paths", FORESTS.values(), ids=FORESTS)
def test_attention_equals_that_of_each_row_alone(paths, heads, share, monkeypatch) -> None:
    monkeypatch.setattr(packing, "FREE_AREA", 64)  # several calls although rows are short
    torch.manual_seed(0)
    packed = pack(paths, share=share)
    n = len(packed.tokens)
    q, k, v = (
        torch.randn(1, h, n, 8, dtype=torch.float64, requires_grad=True)
        for h in (heads[0], heads[1], heads[1])
    )
    upstream = torch.randn(n, heads[0], 8, dtype=torch.float64)
    seen = PackedPlan(packed, "cpu").attend(0, q, k, v, 0.3, 0.0)
    assert seen.shape == (1, n, heads[0], 8)
    gradients = torch.autograd.grad((seen[0] * upstream).sum(), (q, k, v))

    expected = torch.zeros(n, heads[0], 8, dtype=torch.float64)
    for index in packed.index:
        alone = scaled_dot_product_attention(
            q[:, :, index], k[:, :, index], v[:, :, index], is_causal=True, scale=0.3,
            enable_gqa=True,
        )  # fmt: skip
        # a shared token gets the same from each of its rows: the last one may stay
        expected = expected.index_copy(0, index, alone[0].transpose(0, 1))
    torch.testing.assert_close(seen[0], expected)
    truth = torch.autograd.grad((expected * upstream).sum(), (q, k, v))
    for ours, theirs in zip(gradients, truth, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_shared_tokens_are_placed_once() -> None:
    sizes = {name: len(pack(paths).tokens) for name, paths in FORESTS.items()}
    assert sizes["equal rows"] == 3
    assert sizes["a prefix of another"] == 2 + 2 + 1
    assert sizes["nothing shared"] == 5
    assert sizes["two families"] == (2 + 1 + 1) + (3 + 1)
    assert sizes["branches"] == 3 + 12 + 1 + (1 + 12) + 1 + 2 + 1
    assert sizes["branches too short to share"] == 1 + 4 + 4 + 1
    assert sizes["a long branch behind a short fork"] == 1 + 2 + 13 + 1 + 2


def test_pinned_tokens_are_shared_all_or_not_at_all() -> None:
    alike = [path([1, 2, 3, 4], pinned=3), path([1, 2, 3, 5], pinned=3)]
    assert len(pack(alike).tokens) == 3 + 1 + 1
    assert pack(alike).roots == [0]
    later = [path([1, 2, 3, 4], pinned=4), path([1, 2, 3, 5, 6], pinned=3)]
    assert len(pack(later).tokens) == 4 + 5
    assert pack(later).roots == [0, 1]


def test_padding_inside_calls_stays_small() -> None:
    """Lengths 1 to 500: one call for all would be mostly padding."""
    torch.manual_seed(0)
    paths = [path([1] * 50 + [2 + i] * n) for i, n in enumerate(range(1, 500, 6))]
    plan = PackedPlan(pack(paths), "cpu")
    real = sum(s.length * (s.length + len(s.ancestors)) for c in plan.calls for s in c.segments)
    padded = sum(
        len(c.segments) * c.queries * (len(c.key_index) // len(c.segments)) for c in plan.calls
    )
    small = packing.FREE_AREA
    assert padded <= real / (1 - packing.WASTE) + 2 * small
    assert all(
        len(c.segments) * c.queries * (len(c.key_index) // len(c.segments)) <= packing.MAX_AREA
        for c in plan.calls
    )
    assert len(plan.calls) < 15


def test_plan_refuses_another_layout() -> None:
    plan = PackedPlan(pack([path([1, 2, 3])]), "cpu")
    x = torch.zeros(1, 2, 4, 8)
    with pytest.raises(ValueError, match="plan of 3 packed tokens"):
        plan.attend(0, x, x, x, 1.0, 0.0)


def test_dropout_reaches_the_attention() -> None:
    plan = PackedPlan(pack([path([1, 2, 3]), path([1, 2, 4])]), "cpu")
    x = torch.randn(1, 2, 4, 8)
    assert not torch.equal(plan.attend(0, x, x, x, 1.0, 0.5), plan.attend(0, x, x, x, 1.0, 0.0))


def test_split_counts_tokens_as_they_are_placed() -> None:
    paths = [path([1, 2, 3, 4]), path([1, 2, 3, 5, 6]), path([1, 2, 9]), path([8, 8], 1)]
    none = [0] * 4
    # shared: 4, then 3 + 1 + 2 = 6, then 2 + 2 + 3 + 1 = 8, then 10
    assert split(paths, none, 10, packing="shared") == [[0, 1, 2, 3]]
    assert split(paths, none, 9, packing="shared") == [[0, 1, 2], [3]]
    assert split(paths, none, 7, packing="shared") == [[0, 1], [2, 3]]
    assert split(paths, none, 9, packing="flat") == [[0, 1], [2, 3]]
    assert split(paths, none, 15, packing="padded") == [[0, 1, 2], [3]]
    assert split(paths, none, 1, packing="shared") == [[0], [1], [2], [3]]
    # 5 more for an image: once per family where it is shared, for every row where it is not
    assert split(paths, [5, 5, 5, 0], 15, packing="shared") == [[0, 1, 2, 3]]
    assert split(paths, [5, 5, 5, 0], 15, packing="flat") == [[0], [1], [2, 3]]
    pinned = [path([1, 2, 3], pinned=3), path([1, 2, 4], pinned=3)]
    assert split(pinned, [5, 5], 16, packing="shared") == [[0, 1]]
    assert split(pinned, [5, 5], 15, packing="shared") == [[0], [1]]
