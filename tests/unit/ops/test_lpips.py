"""LPIPS by hand, and against nets laid out as torchvision's."""

from __future__ import annotations

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import nn

from trainer.errors import ConfigError
from trainer.ops.image_similarity import as_array
from trainer.ops.lpips import Lpips

ALEX = ((0, 11), (3, 5), (6, 3), (8, 3), (10, 3))  # place and side of each convolution


def colours_alone():
    """Every convolution takes what is under its middle: red and green go through all layers."""
    state = {}
    for place, side in ALEX:
        kernel = torch.zeros(2, 3 if place == 0 else 2, side, side)
        kernel[0, 0, side // 2, side // 2] = kernel[1, 1, side // 2, side // 2] = 1
        state |= {f"features.{place}.weight": kernel, f"features.{place}.bias": torch.zeros(2)}
    return state


def linear(*weights):
    return {f"lin{i}.model.1.weight": torch.tensor(w)[None, :, None, None] for i, w in weights}


def written(folder, *states):
    """The first as safetensors, the others as torch saves them."""
    paths = []
    for number, state in enumerate(states):
        path = folder / (f"{number}.pth" if number else "0.safetensors")
        if number:
            torch.save(state, path)
        else:
            save_file(state, path)
        paths.append(str(path))
    return paths


async def distances(paths, images, right, **fields):
    net = await Lpips(weights=paths, **fields).open()
    return await net.distances(images, right)


WEIGHTS = linear(*((layer, [0.1, 0.2]) for layer in range(4)), (4, [0.5, 0.0]))


async def test_by_hand(tmp_path):
    """White: v = ((1 + 0.030) / 0.458, (1 + 0.088) / 0.448) = (2.248908, 2.428571), of length
    3.309932, so u = (0.679442, 0.733722). Red: green is below 0, u = (1, 0). The squared
    differences are 0.102757 and 0.538348; four layers 0.1, 0.2, the fifth 0.5, 0."""
    paths = written(tmp_path, colours_alone(), WEIGHTS)
    white, red, green = (Image.new("RGB", (40, 36), name) for name in ("white", "red", "lime"))
    found = await distances(paths, [red, white, green], white)
    by_layer = 0.1 * 0.102757 + 0.2 * 0.538348
    assert found[0] == pytest.approx(4 * by_layer + 0.5 * 0.102757, abs=1e-5)
    assert found[1] == 0.0
    by_layer = 0.1 * 0.679442**2 + 0.2 * (1 - 0.733722) ** 2
    assert found[2] == pytest.approx(4 * by_layer + 0.5 * 0.679442**2, abs=1e-5)


async def test_the_mean_is_over_places(tmp_path):
    """Of 64 columns the first layer sees 3, 7, ... 59: fifteen, of which eight are red."""
    paths = written(
        tmp_path, colours_alone(), linear((0, [1.0, 0.0]), *((i, [0.0, 0.0]) for i in range(1, 5)))
    )
    half = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(half).rectangle((0, 0, 31, 63), fill="red")
    (found,) = await distances(paths, [half], Image.new("RGB", (64, 64), "white"))
    assert found == pytest.approx(8 / 15 * 0.102757, abs=1e-5)


def torchvisions(net, widths):
    """`features` as torchvision's `alexnet` and `vgg16` lay them out."""
    layers, before = nn.Sequential(), 3
    if net == "alex":
        for (_, side), width, stride, padding in zip(
            ALEX, widths, (4, 1, 1, 1, 1), (2, 2, 1, 1, 1), strict=True
        ):
            layers.extend([nn.Conv2d(before, width, side, stride, padding), nn.ReLU()])
            if len(layers) in (2, 5):
                layers.append(nn.MaxPool2d(3, 2))
            before = width
        return layers, (1, 4, 7, 9, 11)
    for width, count in zip(widths, (2, 2, 3, 3, 3), strict=True):
        for _ in range(count):
            layers.extend([nn.Conv2d(before, width, 3, padding=1), nn.ReLU()])
            before = width
        layers.append(nn.MaxPool2d(2, 2))
    return layers, (3, 8, 15, 22, 29)


@pytest.mark.parametrize(
    ("net", "widths"), [("alex", (64, 192, 384, 256, 256)), ("vgg", (4, 6, 8, 8, 8))]
)
async def test_against_torchvisions_layout(tmp_path, net, widths):
    """Also under the names that a whole LPIPS module is saved with."""
    torch.manual_seed(0)
    layers, taps = torchvisions(net, widths)
    lins = [torch.rand(width) for width in widths]
    image, right = (Image.effect_noise((70, 50), s).convert("RGB") for s in (20, 90))

    def features(picture):
        x = torch.as_tensor(as_array(picture)).float().permute(2, 0, 1)[None] * 2 - 1
        shift, scale = torch.tensor([-0.03, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.45])
        x = (x - shift[:, None, None]) / scale[:, None, None]
        for place, layer in enumerate(layers):
            x = layer(x)
            if place in taps:
                yield nn.functional.normalize(x[0], dim=0)

    with torch.no_grad():
        expected = sum(
            ((a - b) ** 2 * w[:, None, None]).sum(0).mean()
            for a, b, w in zip(features(image), features(right), lins, strict=True)
        )
    own = {f"features.{name}": tensor for name, tensor in layers.state_dict().items()}
    heads = linear(*((i, w.tolist()) for i, w in enumerate(lins)))
    whole = {name.replace("features.", "net.slice1."): tensor for name, tensor in own.items()}
    for paths in (written(tmp_path, own, heads), written(tmp_path, whole | heads)):
        for fields in ({}, {"batch_size": 1}):
            found = await distances(paths, [right, image, image], right, net=net, **fields)
            assert found == pytest.approx([0.0, expected.item(), expected.item()], rel=1e-4)


async def test_small_pictures_are_enlarged_and_others_stretched(tmp_path):
    paths = written(tmp_path, colours_alone(), WEIGHTS)
    white, red = Image.new("RGB", (8, 20), "white"), Image.new("RGB", (300, 9), "red")
    found = await distances(paths, [red, white, Image.new("RGBA", (5, 5))], white)
    assert found == pytest.approx([0.523165, 0.0, 0.0], abs=1e-5)
    assert await distances(paths, [], white) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features.3.bias": None}, r"features\.3\.weight and \.bias are missing"),
        ({"features.3.weight": torch.zeros(2, 5, 5, 5)}, r"features\.3\.weight has the shape"),
        ({"lin2.model.1.weight": None}, r"lin2\.model\.1\.weight is missing"),
        ({"lin2.model.1.weight": torch.zeros(3)}, "must have 2 numbers, none negative"),
        ({"lin2.model.1.weight": torch.tensor([1.0, -0.1])}, "must have 2 numbers, none negative"),
    ],
)
async def test_weights_that_do_not_fit_are_named(tmp_path, change, message):
    state = colours_alone() | WEIGHTS | change
    paths = written(
        tmp_path, {name: tensor for name, tensor in state.items() if tensor is not None}
    )
    with pytest.raises(ConfigError, match=rf"scoring\.lpips\.weights: .*{message}"):
        await Lpips(weights=paths).open()


async def test_files_that_cannot_be_read(tmp_path):
    for name in ("none.pth", "none.safetensors", "text.pth", "text.safetensors"):
        path = tmp_path / name
        if name.startswith("text"):
            path.write_text("no weights")
        with pytest.raises(ConfigError, match=r"scoring\.lpips\.weights: cannot read"):
            await Lpips(weights=[str(path)]).open()
