"""Running sums of what an update reports, kept as tensors so that no number waits for a device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from trainer.ops.masked import masked_sum


class Tally:
    """Means weighted by action, plain sums and maxima, by name. `export` makes it picklable, so
    that `merged` can put those of all processes together."""

    def __init__(self) -> None:
        self.means: dict[str, list[Any]] = {}
        """name -> [weighted sum, total weight]"""
        self.sums: dict[str, Any] = {}
        self.maxima: dict[str, Any] = {}

    def mean(self, name: str, value: Tensor | float, weight: Tensor | float) -> None:
        """Adds a value (a number, or a tensor shaped like `weight`) with its weight."""
        if isinstance(value, Tensor) and isinstance(weight, Tensor):
            value, weight = masked_sum(value.detach().double(), weight), weight.double().sum()
        else:
            value = value * weight
        entry = self.means.setdefault(name, [0.0, 0.0])
        entry[0] = entry[0] + value
        entry[1] = entry[1] + weight

    def sum(self, name: str, value: Tensor | float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value

    def maximum(self, name: str, value: Tensor, mask: Tensor) -> None:
        """Largest value where `mask`; values must not be negative."""
        top = torch.where(mask, value.detach(), 0).amax() if mask.numel() else value.new_zeros(())
        self.maxima[name] = torch.maximum(self.maxima[name], top) if name in self.maxima else top

    def add(self, other: Tally) -> None:
        for name, (total, weight) in other.means.items():
            entry = self.means.setdefault(name, [0.0, 0.0])
            entry[0], entry[1] = entry[0] + total, entry[1] + weight
        for name, value in other.sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        for name, value in other.maxima.items():
            self.maxima[name] = max(self.maxima.get(name, value), value)

    def export(self) -> Tally:
        """A copy that holds plain numbers."""
        plain = Tally()
        plain.means = {
            k: [float(total), float(weight)] for k, (total, weight) in self.means.items()
        }
        plain.sums = {k: float(v) for k, v in self.sums.items()}
        plain.maxima = {k: float(v) for k, v in self.maxima.items()}
        return plain

    @classmethod
    def merged(cls, tallies: Iterable[Tally]) -> Tally:
        whole = cls()
        for tally in tallies:
            whole.add(tally)
        return whole

    def report(self) -> Mapping[str, float]:
        """Names with their mean, sum or maximum; a mean without weight is left out."""
        means = {name: total / weight for name, (total, weight) in self.means.items() if weight}
        return means | self.sums | self.maxima
