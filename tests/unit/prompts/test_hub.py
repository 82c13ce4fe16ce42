"""Hugging Face data sets, from folders: what works offline."""

from __future__ import annotations

import io
import re

import datasets
import pytest
from PIL import Image

from trainer.errors import DataError


@pytest.fixture
def saved(tmp_path):
    """A data set of two splits with images, as `save_to_disk` writes it."""
    image = Image.new("RGB", (4, 3), "blue")
    splits = {
        name: datasets.Dataset.from_dict(
            {
                "problem": [f"{name}{i}" for i in range(n)],
                "answer": ["a"] * n,
                "image": [image] * n,
            },
            features=datasets.Features(
                problem=datasets.Value("string"),
                answer=datasets.Value("string"),
                image=datasets.Image(),
            ),
        )
        for name, n in (("train", 5), ("test", 2))
    }
    path = tmp_path / "saved"
    datasets.DatasetDict(splits).save_to_disk(path)
    return str(path)


def test_saved_data_with_images(build, saved):
    source = build({"type": "hub", "path": saved, "holdout_split": "test"})
    prompt = next(source.stream(0))
    image, text = prompt.messages[0]["content"]
    assert image["image"].getpixel((0, 0)) == (0, 0, 255)
    assert text["text"].startswith("train")
    assert prompt.meta["image"]["bytes"] is None
    assert [p.messages[0]["content"][1]["text"] for p in source.heldout()] == ["test0", "test1"]
    assert {"answer", "images", "meta.problem"} <= source.columns()


def test_lists_of_images_stay_encoded_until_drawn(build, tmp_path):
    image = Image.new("RGB", (4, 3), "blue")
    features = datasets.Features(
        question=datasets.Value("string"), images=datasets.List(datasets.Image())
    )
    rows = {"question": ["q"], "images": [[image, image]]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "lists")
    prompt = next(build({"type": "hub", "path": str(tmp_path / "lists")}).stream(0))
    assert [p["type"] for p in prompt.messages[0]["content"]] == ["image", "image", "text"]


def test_a_broken_image_names_the_row(build, tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    rows = {"question": ["q"], "image": [{"bytes": buffer.getvalue()[:-20], "path": None}]}
    features = datasets.Features(question=datasets.Value("string"), image=datasets.Image())
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "broken")
    stream = build({"type": "hub", "path": str(tmp_path / "broken")}).stream(0)
    with pytest.raises(
        DataError, match=r"broken \(train\), row 0: an image of \d+ bytes is broken"
    ):
        next(stream)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of files for `load_dataset`, cached outside the home folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    lines = "".join(f'{{"question": "q{i}"}}\n' for i in range(5))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text(lines)
    return str(tmp_path / "data")


def test_a_folder_of_files_by_split_slice(build, folder):
    stream = build({"type": "hub", "path": folder, "split": "train[:2]"}).stream(0)
    assert {next(stream).messages[0]["content"] for _ in range(4)} == {"q0", "q1"}


def test_resume(build, saved, resumes):
    for n in (0, 4, 5, 7):
        resumes(build({"type": "hub", "path": saved}), n, more=8)


def test_a_split_that_is_not_there_is_named(build, saved):
    with pytest.raises(DataError, match=r"no split 'val'; it has: train, test"):
        build({"type": "hub", "path": saved, "split": "val"}).stream(0)


def test_a_data_set_that_is_not_there_is_named(build, tmp_path):
    with pytest.raises(DataError, match=r"cannot read data set .*/none'"):
        build({"type": "hub", "path": str(tmp_path / "none")}).stream(0)


def test_an_empty_data_set_is_named(build, folder, tmp_path):
    datasets.Dataset.from_dict({"question": []}).save_to_disk(tmp_path / "empty")
    for path, split in ((str(tmp_path / "empty"), "train"), (folder, "train[:0]")):
        message = (
            rf"cannot read data set '{path}' .*split '{re.escape(split)}'\), or it has no rows"
        )
        with pytest.raises(DataError, match=message):
            build({"type": "hub", "path": path, "split": split}).stream(0)
