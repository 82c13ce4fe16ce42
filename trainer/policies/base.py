"""Contract of `policy:`: the trained model; the only code that knows what an action is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from trainer.plugin import Frozen, Plugin

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from trainer.context import Context
    from trainer.types import Batch, Evaluation


class Lora(Frozen):
    """Low-rank adapters through peft."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"


class Policy(Plugin):
    family: ClassVar[str] = "trainer.policies"

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type. `auto`: bfloat16 where the device computes it fast, else float32; weights and
    optimiser state stay float32."""
    packing: Literal["shared", "flat", "padded"] = "shared"
    """`shared`: rows of a group share their common prefix, no padding; `flat`: no padding;
    `padded`: plain right-padded rows, for models with their own attention code."""
    gradient_checkpointing: bool = False
    head_chunk: int = 2048
    """Positions per chunk of the language-model head: logits are never B x T x V at once."""
    lora: Lora | None = None

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        """Loads the model in float32 on `context.device`."""
        yield

    @property
    def module(self) -> nn.Module:
        """What the optimiser trains: `forward(...)` gives log-probs and entropy, so that DDP,
        FSDP2 and DeepSpeed see one ordinary module."""
        raise NotImplementedError

    @property
    def bare_module(self) -> nn.Module:
        """`module` without accelerate's wrappers: its parameter names go into checkpoints."""
        raise NotImplementedError

    @property
    def vocabulary(self) -> int:
        """Number of token ids the head scores."""
        raise NotImplementedError

    @property
    def precision(self) -> str:
        """`float32` or `bfloat16`: what the forward pass computes in."""
        raise NotImplementedError

    def attach(self, module: nn.Module) -> None:
        """Takes the module back after accelerate wrapped it."""
        raise NotImplementedError

    def evaluate(
        self,
        batch: Batch,
        rows: Sequence[int] | None = None,
        *,
        entropy: bool = False,
        module: nn.Module | None = None,
    ) -> Evaluation:
        """[len(rows), T] log-probs of the sampled tokens at the rollout temperature, banned ids
        excluded from the softmax. `module` evaluates another model (a reference) instead."""
        raise NotImplementedError

    def plan(self, batch: Batch, rows: Sequence[int], token_budget: int) -> list[list[int]]:
        """Splits `rows` into micro-batches of at most `token_budget` packed tokens each, rows of
        a group together where they fit. A single longer row gets its own."""
        raise NotImplementedError

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Named full weights (transformers' names), adapters merged, tied weights once."""
        raise NotImplementedError

    def probe(self, rows: list[tuple[list[int], dict[str, Any]]]) -> list[list[float]]:
        """As `Engine.logprobs`, by the policy in eval mode: both sides of the weight probe."""
        raise NotImplementedError

    def export(self, folder: Path) -> None:
        """Writes weights, config and tokenizer so that transformers' `from_pretrained` loads
        them; with LoRA also the bare adapter."""
        raise NotImplementedError
