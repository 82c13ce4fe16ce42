"""Contract of `policy:`: the trained model; the only code that knows what an action is.

The base class holds the whole implementation for autoregressive models. A policy file says what
its model takes besides tokens: `pinned`, `model_inputs` and `patches`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field, PrivateAttr, model_validator

from trainer.errors import ConfigError, DataError
from trainer.plugin import Frozen, Plugin
from trainer.types import Evaluation

if TYPE_CHECKING:
    import pathlib
    from contextlib import AbstractContextManager

    import torch
    from torch import Tensor, nn

    from trainer.context import Context
    from trainer.ops.adapters import Adapter
    from trainer.ops.arrangement import Row
    from trainer.ops.logprobs import Answers, LogprobModel
    from trainer.ops.packing import Path
    from trainer.types import Batch

_SCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


class Lora(Frozen):
    """Low-rank adapters through peft."""

    rank: int = Field(16, gt=0)
    alpha: int = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"


@dataclass(slots=True)
class _Live:
    context: Context
    inner: LogprobModel
    outer: nn.Module
    """`inner`, or what accelerate made of it."""
    adapter: Any
    """peft's view of the same model, or None."""
    banned: torch.Tensor


class Policy(Plugin):
    family: ClassVar[str] = "trainer.policies"

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type. `auto`: bfloat16 where the device computes it fast, else float32; weights and
    optimiser state stay float32."""
    packing: Literal["shared", "flat", "padded"] = "shared"
    """`shared`: rows of a group share their common prefix, no padding; `flat`: no padding;
    `padded`: plain right-padded rows, for models with their own attention code."""
    gradient_checkpointing: bool = False
    head_chunk: int = Field(2048, gt=0)
    """Positions per chunk of the language-model head: logits are never B x T x V at once."""
    lora: Lora | None = None
    head: Literal["lm", "value", "both"] = "lm"
    """`both` adds a value head to the policy (shared trunk; see the modifier `value`). `value` has
    that head only: a critic or a reward model."""
    value_at: Literal["before", "after"] = "before"
    """A value judges the state `before` an action is taken (a critic), or `after` it (a reward
    model that reads the ends of steps)."""

    _live: Any = PrivateAttr(None)

    @model_validator(mode="after")
    def _reads_one_place(self) -> Policy:
        if self.value_at == "after" and self.head != "value":
            raise ValueError(
                f"value_at: after reads other positions than the language model's head: it needs "
                f"head: value, not {self.head}"
            )
        return self

    def pinned(self, row: Row) -> int:
        """Tokens at the beginning of `row` that need its inputs; rows share all of them or
        none. Raises DataError for inputs that this policy does not know."""
        raise NotImplementedError

    def model_inputs(self, inputs: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Keyword arguments of the model for the images of these rows, in this order."""
        raise NotImplementedError

    def patches(self, inputs: dict[str, Any]) -> int:
        """What the inputs cost besides tokens, in tokens: patches that an image encoder sees."""
        raise NotImplementedError

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        """Loads the model in float32 on `context.device`."""
        import torch

        inner, adapter = self._load(context)
        banned = torch.tensor(sorted(context.renderer.banned_ids), dtype=torch.long)
        self._live = _Live(context, inner, inner, adapter, banned.to(context.device))
        try:
            yield
        finally:
            self._live = None

    @property
    def precision(self) -> str:
        """`float32` or `bfloat16`: what the forward pass computes in; known once the policy is
        open."""
        from trainer.ops.devices import compute_dtype

        return compute_dtype(self.dtype, self._opened.context.device)

    @property
    def module(self) -> nn.Module:
        """What the optimiser trains: `forward(...)` gives log-probs and entropy, so that DDP,
        FSDP2 and DeepSpeed see one ordinary module."""
        return self._opened.outer

    @property
    def bare_module(self) -> LogprobModel:
        """`module` without accelerate's wrappers: its parameter names go into checkpoints."""
        return self._opened.inner

    @property
    def backbone(self) -> Any:
        """The transformers model inside `module`."""
        return self._opened.inner.backbone

    @property
    def vocabulary(self) -> int:
        """Number of token ids the head scores."""
        return self.backbone.config.get_text_config().vocab_size

    def attach(self, module: nn.Module) -> None:
        """Takes the module back after accelerate wrapped it."""
        from trainer.ops.logprobs import LogprobModel

        inner = module
        while not isinstance(inner, LogprobModel):
            inner = cast("nn.Module", inner.module)
        self._opened.outer, self._opened.inner = module, inner

    def fresh_module(self) -> LogprobModel:
        """The start model again, in eval mode and without gradient: `evaluate(module=...)`."""
        module, _ = self._load(self._opened.context)
        return module.eval().requires_grad_(False)

    def without_adapter(self) -> AbstractContextManager[None]:
        """While it is entered the policy is its start model; needs `lora`."""
        adapter = self._opened.adapter
        if adapter is None:
            raise ConfigError("policy.lora is not set: there is no adapter to switch off")
        return adapter.disable_adapter()

    def evaluate(
        self,
        batch: Batch,
        rows: Sequence[int] | None = None,
        *,
        temperature: float = 1.0,
        entropy: bool = False,
        module: nn.Module | None = None,
    ) -> Evaluation:
        """[len(rows), T] log-probs of the sampled tokens at the rollout temperature, banned ids
        excluded from the softmax, and values where there is a head for them; 0 elsewhere; on the
        batch's device. With `head: value` the log-probs are all 0.

        Where gradients are on this is the training forward: train mode, dropout active. Under
        `torch.no_grad()` it runs in eval mode and puts the mode back. `module` evaluates another
        model (a reference) instead. Raises DataError for a row that sampled its first token or a
        banned one.
        """
        import torch

        from trainer.ops.arrangement import batch_rows, scatter

        asked = batch_rows(batch, range(len(batch.tokens)) if rows is None else rows)
        device, width = batch.tokens.device, batch.tokens.shape[1]
        logprobs, spread, values = (
            None if answer is None else scatter(answer.to(device), asked, width)
            for answer in self._forward(asked, temperature, entropy, module)
        )
        if logprobs is None:
            logprobs = batch.tokens.new_zeros(len(asked), width, dtype=torch.float32)
        return Evaluation(logprobs=logprobs, entropy=spread, values=values)

    def trained(self) -> dict[str, Tensor]:
        """Trainable parameters by name, tied ones once: what checkpoints hold."""
        return {n: p for n, p in self.bare_module.named_parameters() if p.requires_grad}

    def plan(self, batch: Batch, rows: Sequence[int], token_budget: int) -> list[list[int]]:
        """Splits `rows` into micro-batches of at most `token_budget` packed tokens each, rows of
        a group together where they fit. A single longer row gets its own."""
        from trainer.ops.arrangement import batch_rows
        from trainer.ops.packing import split

        groups = batch.group.tolist()
        order = sorted(rows, key=lambda i: groups[i])
        asked = batch_rows(batch, order)
        extra = [self.patches(row.inputs) for row in asked]
        parts = split(self._paths(asked), extra, token_budget, packing=self.packing)
        return [[order[i] for i in part] for part in parts]

    def weights(self, *, merge: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Named full weights (transformers' names), tied weights once, adapters merged or, without
        `merge`, left out."""
        from trainer.ops.merging import merged_weights

        return merged_weights(self.backbone, merge=merge)

    def adapter(self) -> Adapter | None:
        """What training changes with `lora`; None without."""
        from trainer.ops.adapters import Adapter, adapter_weights

        if self.lora is None:
            return None
        return Adapter(self.lora.rank, self.lora.alpha, partial(adapter_weights, self.backbone))

    def probe(
        self, rows: list[tuple[list[int], dict[str, Any]]], *, module: nn.Module | None = None
    ) -> list[list[float]]:
        """As `Engine.logprobs`, in eval mode; banned tokens have -inf. `module`: see `evaluate`."""
        import torch

        from trainer.ops.arrangement import Row

        asked = []
        for number, (tokens, inputs) in enumerate(rows):
            ids = torch.tensor(tokens)
            actions = self._allowed(ids[1:]).nonzero()[:, 0] + 1
            asked.append(Row(ids, actions, inputs, group=number))
        with torch.no_grad():
            logprobs, _, _ = self._forward(asked, 1.0, False, module)
        if logprobs is None:
            raise ConfigError("policy.head: value has no log-probs to compare with the engine's")
        parts = logprobs.cpu().split([len(row.actions) for row in asked])
        found = []
        for row, values in zip(asked, parts, strict=True):
            whole = torch.full((len(row.tokens),), float("-inf"))
            whole[row.actions] = values.float()
            found.append(whole[1:].tolist())
        return found

    def export(self, folder: pathlib.Path) -> None:
        """Writes weights, config and tokenizer so that transformers' `from_pretrained` loads
        them; with LoRA also the bare adapter, under `adapter/`; a value head under `value_head/`.
        In a sharded run every process calls it, rank 0 writes."""
        from safetensors.torch import save_file

        from trainer.ops.value_heads import head_tensors, save_head

        live = self._opened
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.weights()}
        head = head_tensors(live.inner.value_head) if self.head != "lm" else None
        if live.context.rank:
            return
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        live.context.model.save_assets(folder)
        if head is not None:
            save_head(head, folder)
        if live.adapter is not None:
            live.adapter.save_pretrained(folder / "adapter")

    @property
    def _opened(self) -> _Live:
        if self._live is None:
            raise RuntimeError("the policy is not open: use `async with policy.open(context)`")
        return self._live

    def _load(self, context: Context) -> tuple[LogprobModel, Any]:
        import torch

        from trainer.ops.attention import install, supports_plans
        from trainer.ops.devices import compute_dtype
        from trainer.ops.logprobs import LogprobModel

        padded = self.packing == "padded"
        attention: Any = "sdpa" if padded else install()
        config = context.model.config()
        if not padded and config.get_text_config() is not config:
            attention = {"": "sdpa", "text_config": attention, "vision_config": "sdpa"}
        model = context.model.load(dtype="float32", attn_implementation=attention)
        name = type(model).__name__
        if not padded and not supports_plans(type(model), model.config):
            raise ConfigError(
                f"policy.packing: {name} has attention that cannot be replaced (a window, or "
                f"layers of another kind), so rows cannot be packed; set policy.packing=padded"
            )
        for key in _SCALED_LOGITS:
            if getattr(model.config.get_text_config(), key, None) not in (None, 1.0):
                raise ConfigError(
                    f"model: {name} changes its logits after the head ({key}), which the chunked "
                    "head of policy does not do; choose another model"
                )
        adapter = None
        if self.lora is not None:
            adapter = _with_lora(model, self.lora, context.seed)
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
        compute = getattr(torch, compute_dtype(self.dtype, context.device))
        module = LogprobModel(model, head_chunk=self.head_chunk, compute=compute, head=self.head)
        if self.head != "lm" and (saved := context.model.value_head()) is not None:
            module.value_head.load_state_dict(saved)
        return module.to(context.device).train(), adapter

    def _allowed(self, tokens: Tensor) -> Tensor:
        import torch

        return ~torch.isin(tokens, self._opened.banned.cpu())

    def _forward(
        self, rows: Sequence[Row], temperature: float, entropy: bool, module: nn.Module | None
    ) -> Answers:
        """f[sum of actions]: the rows' actions one after the other."""
        import torch

        from trainer.ops.arrangement import arrange
        from trainer.ops.logprobs import Targets

        live = self._opened
        device = live.context.device
        call = arrange(self.backbone, rows, self._paths(rows), packing=self.packing)
        before = int(self.value_at == "before")
        sources = torch.cat(
            [at[row.actions - before] for at, row in zip(call.index, rows, strict=True)]
        )
        tokens = torch.cat([row.tokens[row.actions] for row in rows])
        self._refuse_banned(tokens)
        n = len(tokens)
        if not n:  # other processes may wait for this one's part of the work: compute something
            sources = torch.zeros(1, dtype=torch.long)
            tokens = self._allowed(torch.arange(len(live.banned) + 1)).nonzero()[0]
        inputs = call.model | self.model_inputs([rows[i].inputs for i in call.images])
        inputs = {name: value.to(device) for name, value in inputs.items()}
        if call.plan is not None:
            inputs["attention_plan"] = call.plan(device)
        target = live.outer if module is None else module
        with _mode(target, training=torch.is_grad_enabled()):
            answers = target(inputs, Targets(sources, tokens), live.banned, temperature, entropy)
        logprobs, spread, values = (None if a is None else a[:n] for a in answers)
        return logprobs, spread, values

    def _paths(self, rows: Sequence[Row]) -> list[Path]:
        from trainer.ops.arrangement import row_paths

        return row_paths(rows, self.pinned, reach=int(self.value_at == "after"))

    def _refuse_banned(self, tokens: Tensor) -> None:
        refused = tokens[~self._allowed(tokens)]
        if len(refused):
            raise DataError(
                f"token {int(refused[0])} counts as sampled, but it is banned (an image, video or "
                "padding placeholder); the engine, or who recorded the answer, must leave out "
                f"{self._opened.banned.tolist()}"
            )


@contextmanager
def _mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Train mode stays: gradient checkpointing runs the model again in the backward pass."""
    before = module.training
    if before != training:
        module.train(training)
    try:
        yield
    finally:
        if before and not training:
            module.train()


def _with_lora(model: nn.Module, lora: Lora, seed: int) -> Any:
    """Puts adapters into `model` in place; returns peft's view of it, for saving and switching.
    Leaves torch's global random state alone."""
    import torch
    from peft import LoraConfig, get_peft_model

    targets = lora.target_modules
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return get_peft_model(model, config)
