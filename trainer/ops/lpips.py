"""LPIPS, how different two pictures look, from weights that are given as files."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from trainer.errors import ConfigError
from trainer.ops.image_similarity import as_array, on_white
from trainer.plugin import Frozen

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of pictures in [-1, 1], by channel; LPIPS 0.1, which is ImageNet's normalisation rounded."""
_CONVOLUTION = re.compile(r"(?:features|net\.slice\d)\.(\d+)\.(weight|bias)")
_LINEAR = re.compile(r"lin(\d)\.model\.\d\.weight")


class _Net(NamedTuple):
    layers: tuple[tuple[int, ...], ...]
    """Places of the convolutions in torchvision's `features`, a ReLU after each; the last ReLU of a
    layer is compared."""
    steps: dict[int, tuple[int, int]]
    """Stride and padding of those that have not 1 and 1."""
    pooled: tuple[int, ...]
    """Layers with a max-pooling of stride 2 in front."""
    window: int
    """Of the pooling."""
    smallest: int
    """Side in pixels at which the last layer still has a place."""


_NETS = {
    "alex": _Net(((0,), (3,), (6,), (8,), (10,)), {0: (4, 2), 3: (1, 2)}, (1, 2), 3, 31),
    "vgg": _Net(
        ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)), {}, (1, 2, 3, 4), 2, 16
    ),
}


class Lpips(Frozen):
    """d(x, y) = sum_l mean_hw sum_c w_lc (x_lhwc - y_lhwc)^2; x_l: the features after layer l,
    divided by their length over the channels; w >= 0: learned from human judgements. Source: Zhang
    et al. 2018 (arXiv:1801.03924), version 0.1 of their code."""

    weights: tuple[Path, ...] = Field(min_length=1)
    """State dicts, `.safetensors` or as torch saves them: torchvision's AlexNet or VGG16
    (`features.0.weight`) and the layers' weights (`lin0.model.1.weight`: `weights/v0.1/alex.pth` of
    the package lpips), or one file with both."""
    net: Literal["alex", "vgg"] = "alex"
    batch_size: int = Field(8, gt=0)
    """Pictures per forward pass: memory only."""
    device: str = "cpu"

    async def open(self) -> OpenLpips:
        """Raises ConfigError for a file that cannot be read or a weight that is missing, negative
        or of the wrong size."""
        return await asyncio.to_thread(self._load)

    def _load(self) -> OpenLpips:
        found: dict[str, Tensor] = {}
        for path in self.weights:
            found |= _state(path)
        kernels: dict[int, dict[str, Tensor]] = {}
        linear: dict[int, Tensor] = {}
        for name, tensor in found.items():
            tensor = tensor.detach().float().to(self.device)
            if match := _CONVOLUTION.fullmatch(name):
                kernels.setdefault(int(match[1]), {})[match[2]] = tensor
            elif match := _LINEAR.fullmatch(name):
                linear[int(match[1])] = tensor.flatten()
        self._fit(kernels, linear)
        return OpenLpips(self, {i: (k["weight"], k["bias"]) for i, k in kernels.items()}, linear)

    def _fit(self, kernels: dict[int, dict[str, Tensor]], linear: dict[int, Tensor]) -> None:
        channels = 3
        for layer, places in enumerate(_NETS[self.net].layers):
            for place in places:
                if kernels.get(place, {}).keys() != {"weight", "bias"}:
                    raise self._wrong(f"features.{place}.weight and .bias are missing")
                shape = tuple(kernels[place]["weight"].shape)
                if len(shape) != 4 or shape[1] != channels:
                    raise self._wrong(f"features.{place}.weight has the shape {shape}")
                channels = shape[0]
            if layer not in linear:
                raise self._wrong(f"lin{layer}.model.1.weight is missing")
            if len(linear[layer]) != channels or linear[layer].min() < 0:
                raise self._wrong(
                    f"lin{layer}.model.1.weight must have {channels} numbers, none negative"
                )

    def _wrong(self, reason: str) -> ConfigError:
        files = ", ".join(map(str, self.weights))
        return ConfigError(f"scoring.lpips.weights: no LPIPS of {self.net} in {files}: {reason}")


def _state(path: Path) -> dict[str, Tensor]:
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ConfigError(f"scoring.lpips.weights: cannot read {path}: {error}") from error


class OpenLpips:
    """What `Lpips.open` gives. Calls wait for each other."""

    def __init__(
        self,
        config: Lpips,
        kernels: dict[int, tuple[Tensor, Tensor]],
        linear: dict[int, Tensor],
    ):
        self.config = config
        self._kernels, self._linear = kernels, linear
        self._turn = asyncio.Lock()

    async def distances(self, images: Sequence[Image], right: Image) -> list[float]:
        """d(image, right) >= 0 for each, 0 for the very same picture. Stretched to the size of
        `right`, transparent parts white; where that is too small for the net, both are enlarged."""
        async with self._turn:
            return await asyncio.to_thread(self._distances, images, right)

    def _distances(self, images: Sequence[Image], right: Image) -> list[float]:
        import torch

        shorter = min(right.size)
        if shorter < (smallest := _NETS[self.config.net].smallest):
            width, height = (max(smallest, side * smallest // shorter) for side in right.size)
            right = on_white(right, (width, height))
        target = torch.as_tensor(as_array(right))[None]
        given = [torch.as_tensor(as_array(image, right.size)) for image in images]
        found: list[float] = []
        with torch.no_grad():
            expected = self._features(target)
            for start in range(0, len(given), self.config.batch_size):
                batch = torch.stack(given[start : start + self.config.batch_size])
                total = torch.zeros(len(batch), device=self.config.device)
                for layer, (x, y) in enumerate(zip(self._features(batch), expected, strict=True)):
                    weight = self._linear[layer][:, None, None]
                    total += ((x - y) ** 2 * weight).sum(1).mean((1, 2))
                same = (batch == target).flatten(1).all(1).to(total.device)
                found += total.masked_fill(same, 0.0).tolist()
        return found

    def _features(self, pictures: Tensor) -> list[Tensor]:
        """Unit features [B, C, h, w] of each layer, from [B, H, W, 3] in 0 to 1."""
        import torch
        from torch.nn import functional

        net = _NETS[self.config.net]
        shift, scale = torch.tensor(_SHIFT), torch.tensor(_SCALE)
        x = ((2 * pictures.float() - 1 - shift) / scale).permute(0, 3, 1, 2).to(self.config.device)
        found = []
        for layer, places in enumerate(net.layers):
            if layer in net.pooled:
                x = functional.max_pool2d(x, net.window, 2)
            for place in places:
                stride, padding = net.steps.get(place, (1, 1))
                x = functional.conv2d(x, *self._kernels[place], stride=stride, padding=padding)
                x = x.relu()
            found.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        return found
