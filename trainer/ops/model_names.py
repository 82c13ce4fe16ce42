"""Names of models: a folder of this machine, or a model on the Hub."""

from __future__ import annotations

from pathlib import Path

from trainer.errors import ConfigError


def located(name: str, key: str) -> str:
    """The absolute path of a folder that exists (relative to where Cohort runs), else the name as
    one on the Hub. Raises ConfigError, which names `key`, for what can only be a folder and is
    none."""
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path.resolve())
    looks_local = (
        name.startswith((".", "/", "~"))
        or name.count("/") != 1
        or (path.parent.is_dir() and path.parent != Path())
    )
    if looks_local and ("/" in name or path.exists()):
        raise ConfigError(
            f"{key}: there is no folder {name!r} ({path.absolute()}); give a folder with "
            "config.json, or a Hub name such as Qwen/Qwen2.5-0.5B-Instruct"
        )
    return name
