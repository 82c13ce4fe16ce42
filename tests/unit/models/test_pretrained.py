"""Folders and names; the round trips of saved models are beside the tiny models."""

from __future__ import annotations

import json

import pytest

from trainer.errors import ConfigError
from trainer.models.base import Model
from trainer.models.pretrained import Pretrained
from trainer.models.tiny_text import TinyText
from trainer.models.tiny_vision import TinyVision


@pytest.fixture
def folder(tmp_path):
    TinyText().save_assets(tmp_path / "model")
    return tmp_path / "model"


def test_a_relative_folder_is_found_from_the_working_folder(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert Pretrained(path="model").config().model_type == "qwen2"
    assert Pretrained(path="./model").renderer().stop_ids == (1,)


@pytest.mark.parametrize("path", ["./none", "/none/at/all", "~/none-of-it", "a/b/c", "there/none"])
def test_a_missing_folder_is_named(path, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"model.path: there is no folder '{path}'"):
        Pretrained(path=path).config()


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"model.path: cannot read config.json of '.*"):
        Pretrained(path=str(tmp_path)).config()


def test_a_folder_without_weights_is_named(folder):
    with pytest.raises(ConfigError, match=r"model.path: cannot read weights of"):
        Pretrained(path=str(folder)).load(dtype="float32", attn_implementation="sdpa")


def test_the_chat_template_can_be_replaced(folder, tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text("Q{{ messages[0]['content'] }}A")
    for template in (file.read_text(), str(file)):
        renderer = Pretrained(path=str(folder), chat_template=template).renderer()
        assert renderer.render(({"role": "user", "content": "3"},)).text == "Q3A"


def test_a_missing_chat_template_file_is_named(folder):
    with pytest.raises(ConfigError, match=r"model.chat_template: there is no file 'no.jinja'"):
        Pretrained(path=str(folder), chat_template="no.jinja").renderer()


def test_pixel_limits_bound_the_image_tokens(tmp_path):
    from PIL import Image

    TinyVision(image_size=168).save_assets(tmp_path)
    parts = [{"type": "image", "image": Image.new("RGB", (300, 300))}]
    sizes = {}
    for limit in (None, 60 * 60):
        renderer = Pretrained(path=str(tmp_path), max_pixels=limit).renderer()
        rendered = renderer.render(({"role": "user", "content": parts},))
        sizes[limit] = renderer.resized_sizes(rendered.inputs)
    assert sizes == {None: [(168, 168)], 60 * 60: [(56, 56)]}


def test_assets_are_passed_on(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    TinyVision().save_assets(first)
    Pretrained(path=str(first)).save_assets(second)
    for name in ("preprocessor_config.json", "processor_config.json", "generation_config.json"):
        assert json.loads((second / name).read_text()) == json.loads((first / name).read_text())
    reply = "<think>red</think>"
    copy = Pretrained(path=str(second)).renderer()
    assert copy.encode(reply) == TinyVision().renderer().encode(reply)
    Pretrained(path=str(second)).save_assets(second)  # onto itself


def test_other_vision_families_are_refused(tmp_path):
    TinyVision().save_assets(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "llava"}))
    with pytest.raises(ConfigError, match=r"vision model of type 'llava'; supported: qwen2_vl"):
        Pretrained(path=str(tmp_path)).renderer()


def test_dump_and_load_are_equal():
    model = Model.model_validate({"type": "pretrained", "path": "Qwen/Qwen2.5-0.5B-Instruct"})
    assert Model.model_validate(model.model_dump()) == model
