"""One attention function for transformers' models, whose layout is decided by the caller.

transformers hands the keyword arguments of `model.forward` down to its attention function. A model
loaded with `attn_implementation=install()` therefore computes attention however the
`attention_plan` of the call says: packed rows that share a prefix (`ops.packing`), or decoding
against a shared prompt cache (`ops.decoding`). No padding, no 4-D mask, no patched model.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "cohort_plan"


class AttentionPlan(Protocol):
    """Layout of one forward pass."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float
    ) -> Tensor:
        """query [N, H, L, D], key and value [N, Hk, L, D] of the new tokens, positions already
        rotated; returns [N, L, H, D]."""
        ...


def install() -> str:
    """Makes the function known to transformers; returns its name for `attn_implementation`."""
    AttentionInterface.register(NAME, planned_attention)
    return NAME


def planned_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    attention_plan: AttentionPlan | None = None,
    **_unused: Any,  # transformers' own signature: position_ids, sliding_window, ...
) -> tuple[Tensor, None]:
    """Raises RuntimeError if the model's forward did not pass the plan on: better no number than
    a wrong one."""
    if attention_plan is None:
        raise RuntimeError(
            f"{type(module).__name__} got no attention_plan; this architecture does not pass "
            "keyword arguments to its attention, use packing: padded and engine cache: dynamic"
        )
    layer = cast("int", module.layer_idx)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attention_plan.attend(layer, query, key, value, scale, dropout), None


def supports_plans(model_class: type[PreTrainedModel], config: Any) -> bool:
    """True for decoders whose attention is replaceable and full (no window, no recurrent layer)."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    return bool(getattr(model_class, "_supports_attention_backend", False)) and kinds == {
        "full_attention"
    }
