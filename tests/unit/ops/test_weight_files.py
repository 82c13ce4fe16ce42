"""Buckets: bounded, in order, written only when they are asked for."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from trainer.ops.weight_files import remove, write_buckets

WEIGHTS = [(f"w{i}", torch.full((4, 5), float(i))) for i in range(5)]  # 80 bytes each in float32


def sizes(paths):
    return [sum(t.numel() * t.element_size() for t in load_file(p).values()) for p in paths]


@pytest.mark.parametrize(
    ("dtype", "limit", "expected"),
    [
        ("float32", 160, [160, 160, 80]),
        ("float32", 10_000, [400]),
        ("float32", 1, [80] * 5),  # one that is larger than a bucket has its own
        ("bfloat16", 160, [160, 40]),
    ],
)
def test_no_bucket_is_larger_than_the_limit(tmp_path, dtype, limit, expected):
    paths = list(write_buckets(iter(WEIGHTS), tmp_path / "v1", dtype=dtype, limit=limit))
    assert sizes(paths) == expected
    found = {name: tensor for path in paths for name, tensor in load_file(path).items()}
    assert list(found) == [name for name, _ in WEIGHTS]
    for name, tensor in WEIGHTS:
        assert torch.equal(found[name], tensor.to(getattr(torch, dtype)))


def test_weights_are_read_one_bucket_ahead_at_most(tmp_path):
    """The trainer never holds a second copy of all."""
    read = []

    def streamed():
        for name, tensor in WEIGHTS:
            read.append(name)
            yield name, tensor

    files = write_buckets(streamed(), tmp_path / "v1", dtype="float32", limit=160)
    assert read == []
    seen = [(next(files), len(read))[1] for _ in range(2)]
    assert seen == [3, 5]  # the first of the next bucket says that this one is full


def test_numbers_that_are_not_floats_stay(tmp_path):
    weights = iter([("steps", torch.tensor([7])), ("w", torch.ones(2, requires_grad=True))])
    (path,) = write_buckets(weights, tmp_path / "v1", dtype="bfloat16", limit=100)
    found = load_file(path)
    assert (found["steps"].dtype, found["w"].dtype) == (torch.int64, torch.bfloat16)
    remove(path.parent)
    remove(path.parent)
    assert not path.parent.exists()
