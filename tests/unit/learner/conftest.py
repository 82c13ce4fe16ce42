"""A small causal network behind the policy contract, and recipes around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from trainer.config import Recipe
from trainer.distributed import Distributed
from trainer.engines.base import Engine
from trainer.learner import Learner
from trainer.models.base import Model
from trainer.policies.base import Policy
from trainer.prompts.base import Prompts
from trainer.types import Batch, Evaluation

VOCABULARY = 11


class SmallNet(nn.Module):
    """Embedding, recurrent layer, head: token t is predicted from the tokens before it."""

    def __init__(self, dropout: float):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 6)
        self.mix = nn.GRU(6, 8, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, VOCABULARY)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        hidden = self.dropout(self.mix(self.embedding(tokens))[0])[:, :-1]
        distribution = (self.head(hidden) / temperature).log_softmax(-1)
        chosen = distribution.gather(-1, tokens[:, 1:, None]).squeeze(-1)
        entropy = -(distribution.exp() * distribution).sum(-1)
        return nn.functional.pad(chosen, (1, 0)), nn.functional.pad(entropy, (1, 0))


class SmallPolicy(Policy):
    net_dropout: float = 0.0
    memory: int = 10**9
    """Tokens of a micro-batch above which it runs out of memory, in a graph."""
    _module: Any = PrivateAttr(None)
    _seen: list[int] = PrivateAttr(default_factory=list)

    def model_post_init(self, _: Any) -> None:
        torch.manual_seed(0)
        self._module = SmallNet(self.net_dropout).double()

    @property
    def module(self) -> nn.Module:
        return self._module

    @property
    def seen(self) -> list[int]:
        """Rows of each forward with a graph."""
        return self._seen

    def attach(self, module: nn.Module) -> None:
        self._module = module

    def evaluate(
        self,
        batch: Batch,
        rows: Sequence[int] | None = None,
        *,
        entropy: bool = False,
        module: nn.Module | None = None,
        temperature: float = 1.0,
    ) -> Evaluation:
        tokens, mask = batch.tokens, batch.mask
        self._module.train(torch.is_grad_enabled())
        logprobs, spread = self._module(tokens, temperature)
        if torch.is_grad_enabled():
            self._seen.append(len(tokens))
            if int(batch.length.sum()) > self.memory:
                logprobs.sum().backward()
                raise torch.OutOfMemoryError("a gradient is half written")
        return Evaluation(logprobs * mask, spread * mask if entropy else None)

    def plan(self, batch: Batch, rows: Sequence[int], token_budget: int) -> list[list[int]]:
        parts: list[list[int]] = []
        room = 0
        for row in rows:
            length = int(batch.length[row])
            if length > room or not parts:
                parts.append([])
                room = token_budget
            parts[-1].append(row)
            room -= length
        return parts


class NoModel(Model):
    """The policy brings its own network."""


class NoEngine(Engine):
    """The batches are written by hand."""


class NoPrompts(Prompts):
    """The batches are written by hand."""


@pytest.fixture
def make_recipe() -> Callable[..., Recipe]:
    """`make_recipe(policy={...}, learner={...}, ...)`: a recipe around `SmallPolicy`."""

    def make(policy: dict[str, Any] | None = None, **fields: Any) -> Recipe:
        defaults = {
            "name": "test",
            "steps": 10,
            "seed": 3,
            "model": NoModel(),
            "policy": SmallPolicy(**(policy or {})),
            "engine": NoEngine(),
            "prompts": NoPrompts(),
            "monitors": (),
            "learner": {},
        }
        merged = {**defaults, **fields}
        own = {"lr": 0.01, "token_budget": 1000, "clip_norm": None}
        merged["learner"] = {**own, **merged["learner"]}
        return Recipe(**merged)

    return make


@pytest.fixture
def make_learner(make_recipe) -> Callable[..., Learner]:
    """`make_learner(**recipe fields)` on one CPU process; `reference` is passed through."""

    def make(reference: Any = None, **fields: Any) -> Learner:
        recipe = make_recipe(**fields)
        return Learner(recipe, recipe.policy, reference, Distributed.start(cpu=True))

    return make


@pytest.fixture
def batch() -> Batch:
    """Four groups of three rows, of unequal lengths; group 2 has equal returns, row 4 no action."""
    generator = torch.Generator().manual_seed(1)
    lengths = [9, 5, 7, 4, 6, 8, 5, 5, 9, 3, 7, 6]
    rows, width = len(lengths), max(lengths)
    prompt = [2, 2, 2, 3, 3, 3, 1, 1, 1, 2, 2, 2]
    place = torch.arange(width)
    length = torch.tensor(lengths)
    mask = (place >= torch.tensor(prompt)[:, None]) & (place < length[:, None])
    mask[4] = False
    tokens = torch.randint(0, VOCABULARY, (rows, width), generator=generator)
    rewards = torch.zeros(rows, width)
    returns = [1.0, 0.0, 0.5, 0.2, 0.0, 0.9, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0]
    for row, value in enumerate(returns):
        rewards[row, lengths[row] - 1] = value
    noise = torch.rand(rows, width, generator=generator)
    return Batch(
        tokens=torch.where(place < length[:, None], tokens, 0),
        mask=mask,
        length=length,
        turn=mask.long() - 1,
        version=mask.long() - 1,
        rewards=rewards,
        weight=torch.ones(rows, width),
        group=torch.arange(rows) // 3,
        truncated=torch.arange(rows) == 3,
        rollout=torch.arange(rows),
        sampled_logprobs=-(2 + noise) * mask,
        inputs=({},) * rows,
    )


@pytest.fixture
def gradients() -> Callable[[Learner, Batch], dict[str, Tensor]]:
    """`gradients(learner, batch)`: {name: tensor} as the first optimiser step sees them."""

    def compute(learner: Learner, batch: Batch) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def keep(optimizer: Any, *_: Any) -> None:
            named = learner.module.named_parameters()
            found.update({n: p.grad.clone() for n, p in named} if not found else {})

        learner.optimizer.optimizer.register_step_pre_hook(keep)
        learner.update(learner.advantage(learner.annotate(batch)), 1)
        return found

    return compute
