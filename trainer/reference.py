"""The model that KL terms and rewards compare with: the start weights, or a slow copy of the
policy."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainer.ops.merging import gathered

if TYPE_CHECKING:
    from trainer.config import Reference
    from trainer.policies.base import Policy
    from trainer.types import Batch


class ReferenceModel:
    """`frozen` is a second copy of the start model, or, where the policy trains an adapter, the
    policy with its adapter switched off. `ema` is a copy of the policy that follows it:
    reference <- decay * reference + (1 - decay) * policy (of the adapter's tensors, with LoRA).

    The policy must be open and at its start weights. Checkpoints hold an `ema` only: a frozen
    reference is loaded from `model:` again, which gives the same weights. Calls from several
    threads wait for each other.
    """

    def __init__(self, policy: Policy, config: Reference, *, scores: bool = False):
        """`scores`: it will be asked by `score`, beside the policy's update, which an adapter that
        is switched off would disturb: it gets a copy of its own in any case."""
        self._policy, self._config = policy, config
        follows = config.kind == "ema"
        own = follows or scores or policy.lora is None
        self._module = policy.fresh_module() if own else None
        self._turn = threading.Lock()
        if follows:
            self._follow(decay=0.0)

    @torch.no_grad()
    def logprobs(self, batch: Batch, temperature: float, token_budget: int) -> Tensor:
        """[B, T] in eval mode, 0 outside the action mask."""
        with self._turn:
            if self._module is None:
                with self._policy.without_adapter():
                    return self._evaluate(batch, temperature, token_budget)
            return self._evaluate(batch, temperature, token_budget)

    def score(self, rows: list[tuple[list[int], dict[str, Any]]]) -> list[list[float]]:
        """As `Engine.logprobs`: [n - 1] per row at temperature 1, banned tokens -inf. Needs
        `scores`."""
        if self._module is None:
            raise RuntimeError("this reference was not opened for rewards")
        found = []
        with self._turn:
            for row in rows:  # one at a time: memory, and the same digits whoever else is asked
                found += self._policy.probe([row], module=self._module)
        return found

    def after_step(self, step: int) -> None:
        """To be called after each optimiser step; moves an `ema` every `every` steps."""
        if self._config.kind == "ema" and step % self._config.every == 0:
            with self._turn:
                self._follow(self._config.decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Weights of an `ema`; {} where they can be loaded again."""
        return dict(self._tensors()) if self._config.kind == "ema" else {}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Undoes `state_dict`."""
        own = self._tensors() if self._config.kind == "ema" else {}
        if own.keys() != state.keys():
            raise ValueError(
                f"the saved reference has {len(state)} tensors, this one {len(own)}: "
                "reference.kind or policy.lora was changed since the checkpoint"
            )
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def _evaluate(self, batch: Batch, temperature: float, token_budget: int) -> Tensor:
        found = torch.zeros_like(batch.sampled_logprobs)
        rows = batch.mask.any(-1).nonzero()[:, 0].tolist()
        for part in self._policy.plan(batch, rows, token_budget):
            seen = self._policy.evaluate(batch, part, temperature=temperature, module=self._module)
            found[part] = seen.logprobs.to(found.dtype)
        return found

    def _tensors(self) -> dict[str, Tensor]:
        """What follows the policy: the copies of its trained parameters."""
        policy = self._policy.bare_module.named_parameters()
        trained = {name for name, parameter in policy if parameter.requires_grad}
        return {n: p.detach() for n, p in self._module.named_parameters() if n in trained}

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        theirs = dict(self._policy.bare_module.named_parameters())
        for name, tensor in self._tensors().items():
            tensor.lerp_(gathered(theirs[name]).to(tensor.dtype), 1.0 - decay)
