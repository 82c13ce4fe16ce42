"""Picture vectors of tiny vision models that are made here, against the formula."""

from __future__ import annotations

import json
import math

import pytest
import torch
from PIL import Image, ImageDraw

from trainer.errors import ConfigError
from trainer.ops.image_encoder import ImageEncoder

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def saved(folder, model, processor):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Dinov2Model(Dinov2Config(**SMALL, image_size=28, patch_size=14))
    sizes = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    return saved(tmp_path_factory.mktemp("dino"), model, BitImageProcessorPil(**sizes))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    small = SMALL | {"intermediate_size": 32}
    config = CLIPConfig(
        text_config=small | {"vocab_size": 10, "max_position_embeddings": 8},
        vision_config=small | {"image_size": 16, "patch_size": 8, "projection_dim": 6},
        projection_dim=6,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(config)
    sizes = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    return saved(tmp_path_factory.mktemp("clip"), model, CLIPImageProcessorPil(**sizes))


def pictures():
    red, half = Image.new("RGB", (40, 40), "red"), Image.new("RGB", (40, 40), "white")
    ImageDraw.Draw(half).rectangle((0, 0, 19, 39), fill="blue")
    return [red, half, Image.new("RGB", (28, 28), (10, 200, 30))]


async def vectors(folder, images, **fields):
    encoder = await ImageEncoder(path=str(folder), **fields).open()
    return await encoder.embed(images)


async def test_it_is_the_class_token_of_dinov2(dino):
    from transformers import AutoImageProcessor, AutoModel

    image = pictures()[1]
    (found,) = await vectors(dino, [image])
    fed = AutoImageProcessor.from_pretrained(dino, backend="pil")(image, return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(dino).eval()(**fed).last_hidden_state[0]
    for pooling, expected in (("own", hidden[0]), ("first", hidden[0]), ("mean", hidden.mean(0))):
        (found,) = await vectors(dino, [image], pooling=pooling)
        expected = torch.nn.functional.normalize(expected, dim=0)
        assert found == pytest.approx(expected.tolist(), abs=1e-6)
        assert math.fsum(x * x for x in found) == pytest.approx(1)


async def test_it_is_the_projection_of_clip(clip):
    from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

    image = pictures()[1]
    (found,) = await vectors(clip, [image])
    fed = CLIPImageProcessorPil.from_pretrained(clip)(image, return_tensors="pt")
    with torch.no_grad():
        own = CLIPVisionModelWithProjection.from_pretrained(clip).eval()(**fed).image_embeds[0]
    assert len(found) == 6
    assert found == pytest.approx(torch.nn.functional.normalize(own, dim=0).tolist(), abs=1e-6)


@pytest.mark.parametrize("model", ["dino", "clip"])
async def test_neighbours_and_batches_do_not_matter(model, request):
    folder = request.getfixturevalue(model)
    red, half, green = pictures()
    images = [red, half, green, red.copy()]
    together = await vectors(folder, images)
    small = await vectors(folder, images, batch_size=1)
    for one, other in zip(together, small, strict=True):
        assert one == pytest.approx(other, abs=1e-6)
    assert together[0] == together[3]
    assert together[0] != pytest.approx(together[1], abs=1e-3)
    assert await vectors(folder, []) == []


async def test_transparent_is_white(dino):
    clear, white, grey = (
        Image.new("RGBA", (30, 30), (255, 0, 0, 0)),
        Image.new("RGB", (30, 30), "white"),
        Image.new("L", (30, 30), 255),
    )
    one, two, three = await vectors(dino, [clear, white, grey])
    assert one == two == three


async def test_a_model_without_pooler(dino, tmp_path):
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    config = ViTConfig(**SMALL, intermediate_size=32, image_size=16, patch_size=8)
    plain = ViTModel(config, add_pooling_layer=False)
    folder = saved(tmp_path, plain, ViTImageProcessorPil(size={"height": 16, "width": 16}))
    with pytest.raises(ConfigError, match=r"saved without pooler\.dense\.bias; pooling: first"):
        await vectors(folder, pictures())
    assert len(await vectors(folder, pictures(), pooling="first")) == 3


async def test_a_convolutional_net(tmp_path):
    from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel

    net = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1]))
    folder = saved(tmp_path, net, ConvNextImageProcessorPil(size={"shortest_edge": 32}))
    assert [len(vector) for vector in await vectors(folder, pictures())] == [12] * 3
    with pytest.raises(ConfigError, match=r"scoring\.image_encoder\.pooling: mean does not fit"):
        await vectors(folder, pictures(), pooling="mean")


async def test_what_cannot_be_loaded(tmp_path):
    from transformers import (
        BertConfig,
        BertModel,
        Dinov2Config,
        Dinov2Model,
        DINOv3ViTConfig,
        DINOv3ViTModel,
    )

    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match=r"scoring\.image_encoder\.path: cannot read"):
            await vectors(path, [])
    Dinov2Model(Dinov2Config(**SMALL, image_size=28, patch_size=14)).save_pretrained(tmp_path / "a")
    BertModel(BertConfig(**SMALL, vocab_size=9)).save_pretrained(tmp_path / "b")
    DINOv3ViTModel(DINOv3ViTConfig(**SMALL, intermediate_size=32)).save_pretrained(tmp_path / "c")
    fast = {"image_processor_type": "DINOv3ViTImageProcessor", "size": {"height": 16, "width": 16}}
    (tmp_path / "c" / "preprocessor_config.json").write_text(json.dumps(fast))
    for name in "abc":
        with pytest.raises(ConfigError, match="no image processor that works without torchvision"):
            await vectors(tmp_path / name, [])
