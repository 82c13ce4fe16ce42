"""The folder of a run: made, checked to be writable, and refused if it is another recipe's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import ConfigError
from trainer.yaml import dump_recipe, read_yaml

if TYPE_CHECKING:
    from trainer.config import Recipe
    from trainer.distributed import Distributed

RESOLVED = "config.resolved.yaml"

FREE_TO_CHANGE = (
    "description",
    "steps",
    "output",
    "threads",
    "monitors",
    "evaluation",
    "checkpoint",
    "scoring",
    "learner.no_signal_steps",
    "learner.token_budget",
    "critic.learner.token_budget",
    "rollouts.filters_patience",
)
"""Keys that may differ when a run is continued: they do not change the numbers of a step. (More
`steps` move the end of a falling `learner.schedule`.)"""


def folder_of(recipe: Recipe) -> Path:
    """`output/name`; stages other than `rl` have a folder of their own inside it."""
    folder = recipe.output / recipe.name
    return folder if recipe.stage == "rl" else folder / recipe.stage


def prepare_folder(recipe: Recipe, distributed: Distributed, *, fresh: bool) -> None:
    """Makes the folder and writes the resolved recipe. `fresh` removes an earlier run of the stage.

    Raises `ConfigError` if the folder cannot be written, or if an earlier run in it used a recipe
    that gives other numbers.
    """
    problem = _prepare(recipe, folder_of(recipe), fresh) if distributed.is_main else None
    problem = distributed.broadcast_object(problem)
    if problem:
        raise ConfigError(problem)


def _prepare(recipe: Recipe, folder: Path, fresh: bool) -> str | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            clear_folder(folder)
        path = folder / RESOLVED
        if path.exists() and any((folder / "checkpoints").glob("step_*")):
            before = read_yaml(path)
            changed = differences(before, recipe.model_dump(mode="json"))
            if changed:
                return (
                    f"{folder} holds a run of another recipe:\n  " + "\n  ".join(changed) + "\n"
                    "Continue with the same recipe, use --fresh to start anew, or another name"
                )
        path.write_text(dump_recipe(recipe))
    except OSError as error:
        return f"output: cannot write the run folder {folder} ({error}); choose another `output`"
    return None


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """`loss.clip_high: 0.2 -> 0.28` for every value that differs and may not."""
    if path in FREE_TO_CHANGE:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        return [
            line
            for key in keys
            for line in differences(
                before.get(key), after.get(key), f"{path}.{key}" if path else str(key)
            )
        ]
    return [] if before == after else [f"{path}: {before!r} -> {after!r}"]


def clear_folder(folder: Path) -> None:
    """Removes what an earlier run of a stage left there; folders of other stages stay."""
    for name in ("checkpoints", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (RESOLVED, "curves.png", "page.html", "reward.log"):
        (folder / name).unlink(missing_ok=True)
    for path in folder.glob("*.jsonl"):
        path.unlink(missing_ok=True)
