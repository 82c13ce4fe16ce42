"""References to what other stages of a recipe have trained, put in place of `model: stage`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.checkpoint import Checkpoints
from trainer.config import Recipe
from trainer.errors import CheckpointError
from trainer.models.base import Model
from trainer.models.pretrained import Pretrained
from trainer.models.stage import Stage
from trainer.run_folder import folder_of


def exported(recipe: Recipe) -> Path:
    """The `model/` folder of a stage's newest checkpoint; raises `CheckpointError` if none."""
    folder = folder_of(recipe)
    checkpoints = Checkpoints(folder, recipe.checkpoint.keep)
    step = checkpoints.latest()
    model = checkpoints.path(step) / "model" if step is not None else None
    if model is None or not model.is_dir():
        raise CheckpointError(
            f"stage {recipe.stage!r} left no exported model in {folder}; set "
            "checkpoint.export: last and let it finish"
        )
    return model


def in_place(recipe: Recipe, model_of: Callable[[str], Model] | None = None) -> Recipe:
    """The recipe with every `model: stage` replaced by `model_of(stage)`, which is by default what
    that stage exported under the same `output` and `name`; raises `CheckpointError` if it did
    not."""

    tree = recipe.model_dump(mode="json")
    names = sorted({node["stage"] for node in _references(tree)})
    if not names:
        return recipe
    found = [model_of(name) if model_of else _trained(recipe, name) for name in names]
    models = {name: m.model_dump(mode="json") for name, m in zip(names, found, strict=True)}
    return Recipe.model_validate(_replaced(tree, models))


def planned(recipes: Sequence[Recipe]) -> list[Recipe]:
    """For a look ahead, before anything is trained: a stage's model is like the one it starts from.
    Stages that are not among `recipes` must have been trained."""
    starts: dict[str, Model] = {}
    found = []
    for recipe in recipes:

        def model_of(stage: str, own: Recipe = recipe) -> Model:
            return starts[stage] if stage in starts else _trained(own, stage)

        found.append(in_place(recipe, model_of))
        starts[recipe.stage] = found[-1].model
    return found


def _trained(recipe: Recipe, stage: str) -> Model:
    return Pretrained(path=str(exported(recipe.model_copy(update={"stage": stage}))))


def _references(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if _refers(node):
            yield node
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _replaced(node: Any, models: dict[str, Any]) -> Any:
    if isinstance(node, dict):
        if _refers(node):
            return models[node["stage"]]
        return {key: _replaced(value, models) for key, value in node.items()}
    return [_replaced(value, models) for value in node] if isinstance(node, list) else node


def _refers(node: dict[str, Any]) -> bool:
    return node.keys() == {"type", "stage"} and node["type"] == Stage.name()
