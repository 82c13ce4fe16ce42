"""Tiny open policies, batches of hand-made rollout trees, and a plain implementation to compare
with: one row at a time through transformers' own forward."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.collate import collate
from trainer.context import Context
from trainer.models.base import Model
from trainer.models.tiny_text import TinyText
from trainer.models.tiny_vision import TinyVision
from trainer.policies.base import Policy
from trainer.types import Batch, Group, Prompt, Rollout, Score, Span

Tree = list[tuple[int | None, list[int], bool, dict[str, Any]]]
"""(parent, tokens, sampled, inputs) per span."""


def _group(serial: int, trees: Sequence[Tree]) -> Group:
    rollouts = [
        Rollout(
            spans=[
                Span(
                    parent=parent,
                    role="assistant" if sampled else "user",
                    author="policy" if sampled else "data",
                    message="",
                    tokens=tokens,
                    sampled=[sampled] * len(tokens),
                    logprobs=[0.0] * len(tokens),
                    version=[0 if sampled else -1] * len(tokens),
                    inputs=inputs,
                )
                for parent, tokens, sampled, inputs in tree
            ],
            score=Score(value=1.0),
        )
        for tree in trees
    ]
    return Group(Prompt(str(serial), (), serial=serial), rollouts)


class _Tokens:
    """Random ordinary ids, and replies that sometimes begin alike."""

    def __init__(self, low: int, high: int):
        self.low, self.high = low, high
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, n: int) -> list[int]:
        return torch.randint(self.low, self.high, (n,), generator=self.generator).tolist()


@pytest.fixture
def text_batch() -> Batch:
    """Group 0: four replies, one of a single token (nothing of it is computed but the prompt),
    two that agree on 10 tokens. Group 1: a tree that forks after a sampled turn, and a chain.
    Group 2: one row, another prompt length."""
    new = _Tokens(6, 100)
    prompt, same = new(9), new(10)
    first = [
        [(None, prompt, False, {}), (0, reply, True, {})]
        for reply in (new(12), new(1), same + new(3), same + new(7))
    ]
    asked, turn = new(5), new(11)
    fork: Tree = [
        (None, asked, False, {}),
        (0, turn, True, {}),
        (1, new(3), False, {}),
        (2, new(6), True, {}),
        (1, new(2), False, {}),
        (4, new(4), True, {}),
    ]
    chain: Tree = [(None, asked, False, {}), (0, new(8), True, {})]
    alone: Tree = [(None, new(14), False, {}), (0, new(5), True, {})]
    return collate([_group(0, first), _group(1, [fork, chain]), _group(2, [alone])])


@pytest.fixture
def vision_model() -> TinyVision:
    return TinyVision()


@pytest.fixture
def vision_batch(vision_model: TinyVision) -> Batch:
    """Two groups with images of different sizes (in one of them a row has equal tensors that are
    not the same objects), a row of plain text, and a tree one branch of which gets a second
    image after it has sampled."""
    config = vision_model.config()
    new = _Tokens(20, 60)

    def image(height: int, width: int) -> tuple[list[int], dict[str, Tensor]]:
        patches = torch.randn(height * width, 3 * 2 * 14 * 14, generator=new.generator)
        tokens = [
            config.vision_start_token_id,
            *[config.image_token_id] * (height * width // 4),
            config.vision_end_token_id,
        ]
        grid = torch.tensor([[1, height, width]])
        return tokens, {"pixel_values": patches, "image_grid_thw": grid}

    shown, pixels = image(6, 6)
    prompt = new(3) + shown + new(4)
    copied = {name: tensor.clone() for name, tensor in pixels.items()}
    square = [
        [(None, prompt, False, inputs), (0, new(n), True, {})]
        for n, inputs in ((5, pixels), (1, pixels), (9, copied))
    ]
    shown, pixels = image(4, 6)
    prompt = new(2) + shown + new(6)
    wide = [[(None, prompt, False, pixels), (0, new(n), True, {})] for n in (3, 8)]
    later, more = image(4, 4)
    tree: Tree = [
        (None, prompt, False, pixels),
        (0, new(9), True, {}),
        (1, later + new(2), False, more),
        (2, new(4), True, {}),
        (1, new(3), False, {}),
        (4, new(5), True, {}),
    ]
    text: Tree = [(None, new(6), False, {}), (0, new(7), True, {})]
    return collate([_group(0, square), _group(1, [*wide, tree]), _group(2, [text])])


@pytest.fixture
def context(make_context: Callable[..., Context]) -> Callable[..., Context]:
    """`context(model, banned=...)`; ids 0 and 1 and image placeholders are banned by default."""

    def make(model: Model, banned: Sequence[int] | None = None) -> Context:
        if banned is None:
            images = getattr(model.config(), "image_token_id", 0)
            banned = sorted({0, 1, images})
        return make_context(model, SimpleNamespace(banned_ids=tuple(banned)))

    return make


@pytest.fixture
def opened(context) -> Callable[..., AbstractAsyncContextManager[Policy]]:
    """`async with opened(policy, model, dtype=torch.float32) as policy`."""

    @asynccontextmanager
    async def open_(
        policy: Policy, model: Model | None = None, dtype: torch.dtype = torch.float32
    ) -> AsyncIterator[Policy]:
        async with policy.open(context(model or TinyText())):
            policy.module.to(dtype)
            yield policy

    return open_


@pytest.fixture
def pick() -> Callable[[Batch, Sequence[int]], Batch]:
    """`pick(batch, rows)`: the batch with these rows, in this order."""

    def take(batch: Batch, rows: Sequence[int]) -> Batch:
        changes: dict[str, Any] = {"inputs": tuple(batch.inputs[i] for i in rows)}
        for field in fields(batch):
            value = getattr(batch, field.name)
            if isinstance(value, Tensor):
                changes[field.name] = value[list(rows)]
        return batch.with_(**changes)

    return take


Gradients = dict[str, Tensor]


def _coefficients(batch: Batch) -> tuple[Tensor, Tensor]:
    """Fixed numbers per (row content, position), so that they follow a row wherever it goes; of
    one sign, so that the loss is not the small difference of large numbers."""
    at = torch.arange(batch.tokens.shape[1])
    key = (batch.tokens.cumsum(1) * 31 + at * 7).double()
    return 1 + 0.9 * torch.sin(key), 0.1 * torch.cos(key) - 0.1


@pytest.fixture
def loss_of() -> Callable[[Batch, Any], Tensor]:
    """`loss_of(batch, evaluation)`: a weighted sum of log-probs and entropies with fixed
    coefficients."""

    def loss(batch: Batch, evaluation: Any) -> Tensor:
        a, b = (c.to(evaluation.logprobs.dtype) for c in _coefficients(batch))
        return (a * evaluation.logprobs + b * evaluation.entropy).sum() / 10

    return loss


@pytest.fixture
def measure(opened, loss_of, pick) -> Callable[..., Any]:
    """`await measure(policy, model, batch, dtype=..., budget=None, order=None)`: loss and the
    gradient of every parameter, summed over the micro-batches of `budget`."""

    async def run(
        policy: Policy,
        model: Model,
        batch: Batch,
        *,
        dtype: torch.dtype = torch.float32,
        budget: int | None = None,
        order: Sequence[int] | None = None,
    ) -> tuple[float, Gradients]:
        if order is not None:
            batch = pick(batch, order)
        rows = list(range(len(batch.tokens)))
        async with opened(policy, model, dtype) as live:
            parts = [rows] if budget is None else live.plan(batch, rows, budget)
            assert sorted(i for part in parts for i in part) == rows
            total = 0.0
            for part in parts:
                evaluation = live.evaluate(batch, part, temperature=0.7, entropy=True)
                loss = loss_of(pick(batch, part), evaluation)
                loss.backward()
                total += loss.item()
            named = live.bare_module.backbone.named_parameters()
            return total, {name: p.grad for name, p in named if p.grad is not None}

    return run


@pytest.fixture(scope="session")
def computed() -> dict[Any, tuple[float, Gradients]]:
    """What `plain` has found so far: it is slow, and most tests compare with the same."""
    return {}


@pytest.fixture
def plain(loss_of, context, computed) -> Callable[..., tuple[float, Gradients]]:
    """`plain(model, batch, dtype)`: as `measure`, by transformers' own forward of one row at a
    time with whole logits."""

    def run(model: Model, batch: Batch, dtype: torch.dtype) -> tuple[float, Gradients]:
        key = (model.model_dump_json(), str(batch.tokens.tolist()), dtype)
        if key not in computed:
            computed[key] = compute(model, batch, dtype)
        return computed[key]

    def compute(model: Model, batch: Batch, dtype: torch.dtype) -> tuple[float, Gradients]:
        network: nn.Module = model.load(dtype="float32", attn_implementation="sdpa").to(dtype)
        banned = list(context(model).renderer.banned_ids)
        logprobs = torch.zeros(batch.tokens.shape, dtype=dtype)
        entropy = torch.zeros(batch.tokens.shape, dtype=dtype)
        for i, n in enumerate(batch.length.tolist()):
            tokens = batch.tokens[i : i + 1, :n]
            inputs = dict(batch.inputs[i])
            if inputs:
                inputs["mm_token_type_ids"] = (tokens == network.config.image_token_id).int()
                inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
            logits = network(input_ids=tokens, **inputs).logits[0, :-1] / 0.7
            allowed = [t for t in range(logits.shape[-1]) if t not in banned]
            chances = logits[:, allowed].log_softmax(-1)
            spread = -(chances.exp() * chances).sum(-1)
            for t in batch.mask[i].nonzero()[:, 0].tolist():
                logprobs[i, t] = chances[t - 1, allowed.index(int(tokens[0, t]))]
                entropy[i, t] = spread[t - 1]
        loss = loss_of(batch, SimpleNamespace(logprobs=logprobs, entropy=entropy))
        loss.backward()
        named = network.named_parameters()
        return loss.item(), {name: p.grad for name, p in named if p.grad is not None}

    return run


@pytest.fixture
def assert_same() -> Callable[..., None]:
    """`assert_same(one, other, tolerance)`: loss, whole gradient and each parameter's, relative;
    a single parameter may be off by twice the tolerance."""

    def check(
        one: tuple[float, Gradients], other: tuple[float, Gradients], tolerance: float
    ) -> None:
        assert one[0] == pytest.approx(other[0], rel=tolerance)
        assert one[1].keys() == other[1].keys()
        whole = torch.stack([g.norm() for g in other[1].values()]).norm()
        gap = torch.stack([(one[1][n] - g).norm() for n, g in other[1].items()]).norm()
        assert gap <= tolerance * whole, float(gap / whole)
        for name, gradient in other[1].items():
            error = (one[1][name] - gradient).norm()
            # a gradient that is nearly nothing is measured against the whole
            assert error <= 2 * tolerance * max(gradient.norm(), 1e-3 * whole), name

    return check
