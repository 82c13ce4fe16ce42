"""Optional fields of a batch, where they must be there."""

from __future__ import annotations

from torch import Tensor


def filled(values: Tensor | None, name: str) -> Tensor:
    """`values`; ValueError with the field's `name` where no earlier stage filled it."""
    if values is None:
        raise ValueError(
            f"{name}: this batch has none. The stage that fills them comes first (for log-probs, "
            "entropy and values: name them in the plug-in's `needs`)"
        )
    return values
