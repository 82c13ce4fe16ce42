"""The chunked head, against whole logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trainer.ops.logprobs import Targets, chunked_logprobs

N, D, V = 23, 6, 11
BANNED = torch.tensor([0, 7])


@pytest.fixture
def head() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(D, V, dtype=torch.float64)


@pytest.fixture
def hidden() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(N, D, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def asked() -> tuple[torch.Tensor, torch.Tensor]:
    """60 questions in no order; some twice, some about the same hidden state."""
    torch.manual_seed(2)
    allowed = torch.tensor([t for t in range(V) if t not in BANNED])
    return torch.randint(0, N, (60,)), allowed[torch.randint(0, len(allowed), (60,))]


def truth(head, hidden, sources, tokens, temperature):
    logits = head(hidden) / temperature
    allowed = [t for t in range(V) if t not in BANNED]
    chances = logits[:, allowed].log_softmax(-1)
    at = torch.tensor([allowed.index(int(t)) for t in tokens])
    return chances[sources, at], -(chances.exp() * chances).sum(-1)[sources]


@pytest.mark.parametrize("chunk", [1, 4, 22, 23, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_values_and_gradients_in_any_chunks(head, hidden, asked, chunk, temperature) -> None:
    expected = truth(head, hidden, *asked, temperature)
    found = chunked_logprobs(
        head,
        hidden,
        Targets(*asked),
        banned=BANNED,
        temperature=temperature,
        chunk=chunk,
        entropy=True,
    )
    weights = torch.randn(2, 60, dtype=torch.float64)
    gradients = []
    for pair in (expected, found):
        loss = (weights[0] * pair[0] + weights[1] * pair[1]).sum()
        gradients.append(torch.autograd.grad(loss, (hidden, head.weight, head.bias)))
    for ours, theirs in zip((*found, *gradients[1]), (*expected, *gradients[0]), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_uniform_by_hand() -> None:
    head = nn.Linear(D, V, bias=False)
    nn.init.zeros_(head.weight)
    targets = Targets(torch.tensor([0]), torch.tensor([3]))
    logprobs, entropy = chunked_logprobs(
        head, torch.ones(1, D), targets, banned=BANNED, entropy=True
    )
    assert logprobs.item() == pytest.approx(-math.log(V - 2))
    assert entropy.item() == pytest.approx(math.log(V - 2))
    assert chunked_logprobs(head, torch.ones(1, D), targets, banned=BANNED)[1] is None


def test_logits_never_exist_for_more_than_a_chunk(head, hidden, asked) -> None:
    sizes = []
    head.register_forward_hook(lambda module, args, output: sizes.append(output.shape))
    targets = Targets(*asked)
    found = chunked_logprobs(head, hidden, targets, banned=BANNED, chunk=4, entropy=True)
    forward = list(sizes)
    (found[0].sum() + found[1].sum()).backward()
    distinct = len(set(asked[0].tolist()))
    assert max(rows for rows, _ in sizes) == 4
    assert sum(rows for rows, _ in forward) == distinct  # the same state is asked once
    assert len(sizes) == 2 * len(forward)  # computed again, not kept


def test_saves_no_logits_for_the_backward_pass() -> None:
    """What autograd keeps does not grow with the vocabulary."""

    def kept(vocabulary: int) -> int:
        head = nn.Linear(D, vocabulary)
        sizes = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        targets = Targets(torch.arange(64) % 32, torch.arange(64) % 8 + 1)
        hidden = torch.randn(32, D, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            chunked_logprobs(
                head, hidden, targets, banned=BANNED, chunk=8, entropy=True, temperature=0.5
            )
        return sum(sizes)

    assert kept(10_000) == kept(100)


def test_half_precision_logits_become_float32() -> None:
    torch.manual_seed(0)
    head, hidden = nn.Linear(D, V).bfloat16(), torch.randn(N, D).bfloat16()
    targets = Targets(torch.arange(5), torch.arange(1, 6))
    logprobs, entropy = chunked_logprobs(head, hidden, targets, banned=BANNED, entropy=True)
    assert logprobs.dtype == entropy.dtype == torch.float32
    logits = head(hidden[:5]).float()
    logits[:, BANNED] = float("-inf")
    expected = logits.log_softmax(-1)[torch.arange(5), torch.arange(1, 6)]
    torch.testing.assert_close(logprobs, expected)


def test_no_nan_where_a_probability_vanishes() -> None:
    head = nn.Linear(1, V, bias=False)
    nn.init.zeros_(head.weight)
    head.weight.data[1] = 1e4
    hidden = torch.ones(1, 1, requires_grad=True)
    targets = Targets(torch.tensor([0, 0]), torch.tensor([1, 2]))
    logprobs, entropy = chunked_logprobs(head, hidden, targets, banned=BANNED, entropy=True)
    (logprobs.sum() + entropy.sum()).backward()
    assert logprobs.tolist() == [0.0, -1e4]
    assert entropy.tolist() == [0.0, 0.0]
    assert torch.isfinite(head.weight.grad).all()
