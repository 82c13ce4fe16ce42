"""A trained value head that serves as a judge: values after chosen tokens, never trained."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trainer.errors import ConfigError

if TYPE_CHECKING:
    from trainer.context import Context
    from trainer.models.base import Model
    from trainer.policies.base import Policy
    from trainer.renderer import Renderer
    from trainer.types import Batch


@dataclass(frozen=True, slots=True)
class Asked:
    """Values wanted after `tokens[place]` of every place."""

    tokens: list[int]
    places: list[int]
    """Rising; none of them 0."""
    inputs: dict[str, Any]


class ValueModel:
    """What `open_value_model` gives."""

    def __init__(self, policy: Policy, renderer: Renderer, token_budget: int):
        self.renderer = renderer
        self._policy, self._token_budget = policy, token_budget
        self._turn = asyncio.Lock()

    async def values(self, rows: Sequence[Asked]) -> list[list[float]]:
        """One list per row, one value per place. Rows share the computation of what they begin
        with in common; a row without places costs nothing. What else is asked at the same time
        never changes the result: calls wait for each other."""
        found: list[list[float]] = [[] for _ in rows]
        busy = [i for i, row in enumerate(rows) if row.places]
        if busy:
            async with self._turn:
                seen = await asyncio.to_thread(self._values, [rows[i] for i in busy])
            for i, values in zip(busy, seen, strict=True):
                found[i] = values
        return found

    def _values(self, rows: Sequence[Asked]) -> list[list[float]]:
        import torch

        batch = _batch(rows)
        found: list[list[float]] = [[] for _ in rows]
        with torch.no_grad():
            for part in self._policy.plan(batch, range(len(rows)), self._token_budget):
                values = self._policy.evaluate(batch, part).values
                if values is None:
                    raise ConfigError("the model of this reward has no value head")
                for line, i in zip(values, part, strict=True):
                    found[i] = line[rows[i].places].double().tolist()
        return found


@asynccontextmanager
async def open_value_model(
    policy: Policy, model: Model, context: Context, token_budget: int
) -> AsyncIterator[ValueModel]:
    """Loads `model` with its trained head; raises ConfigError if it was saved without one."""
    reader = policy.model_copy(update={"head": "value", "value_at": "after"})
    if model.value_head() is None:
        raise ConfigError(
            f"reward.model: {model.name()} has no trained value head; train one with a stage "
            "(policy: {head: value, value_at: after}, loss: step_bce or bradley_terry) and name "
            "what it exports, or take a checkpoint for token or sequence classification"
        )
    renderer = model.renderer()
    async with reader.open(replace(context, model=model, renderer=renderer)):
        reader.module.eval().requires_grad_(False)
        yield ValueModel(reader, renderer, token_budget)


def refuse_other_tokens(own: Renderer, policy: Renderer) -> None:
    """Raises ConfigError unless the two tokenizers give the same ids."""
    if own is not policy and own.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ConfigError(
            "reward.reads: rollout hands the policy's tokens to a model with another tokenizer; "
            "set reads: text"
        )


def _batch(rows: Sequence[Asked]) -> Batch:
    """The rows as a group of their own, with the places as actions."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from trainer.types import Batch

    tokens = pad_sequence([torch.tensor(row.tokens) for row in rows], batch_first=True)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for line, row in zip(mask, rows, strict=True):
        line[row.places] = True
    blank = torch.zeros_like(tokens, dtype=torch.float32)
    number = torch.arange(len(rows))
    return Batch(
        tokens=tokens,
        mask=mask,
        length=torch.tensor([len(row.tokens) for row in rows]),
        turn=torch.where(mask, 0, -1),
        version=torch.full_like(tokens, -1),
        rewards=blank,
        weight=torch.ones_like(blank),
        group=torch.zeros_like(number),
        rollout=number,
        sampled_logprobs=blank,
        inputs=tuple(row.inputs for row in rows),
    )
