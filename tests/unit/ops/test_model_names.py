"""A folder, a name on the Hub, or a mistake."""

from __future__ import annotations

import re

import pytest

from trainer.errors import ConfigError
from trainer.ops.model_names import located


def test_folders_are_found_from_the_working_folder_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs/judge").mkdir(parents=True)
    assert located("configs/judge", "k") == located("./configs/judge", "k")
    assert located("configs/judge", "k") == str((tmp_path / "configs/judge").resolve())
    assert located("Qwen/Qwen2.5-7B-Instruct", "k") == "Qwen/Qwen2.5-7B-Instruct"
    assert located("gpt2", "k") == "gpt2"


@pytest.mark.parametrize("name", ["configs/jugde", "./judge", "/no/judge", "a/b/c", "file/inside"])
def test_what_can_only_be_a_folder_must_be_one(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "file").mkdir()
    (tmp_path / "file/inside").touch()
    said = re.escape(f"server.start.model: there is no folder {name!r} ({tmp_path / name})")
    with pytest.raises(ConfigError, match=said if name[0] not in "./" else "there is no folder"):
        located(name, "server.start.model")
