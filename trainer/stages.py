"""The stages of a recipe, in order: each starts from the weights the one before it exported, or
from the `model` that it names itself, which may be that of any other stage."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from trainer.config import Recipe
from trainer.curves import draw_curves
from trainer.loop import train
from trainer.models.pretrained import Pretrained
from trainer.models.stage import Stage
from trainer.run_folder import clear_folder, folder_of
from trainer.stage_models import exported


async def run_stages(recipes: Sequence[Recipe], *, fresh: bool = False) -> Path:
    """Trains what is not finished yet; returns the folder of the last stage.

    `fresh` starts every stage anew. A single later stage (`--stage rl`) needs the earlier ones'
    exported weights only if its recipe follows them in the same call.
    """
    if fresh and int(os.environ.get("RANK", "0")) == 0:
        # All at once: if this run stops in an early stage, it must not go on with the later stages
        # of the run before. A folder that cannot be written is reported when its stage opens.
        with contextlib.suppress(OSError):
            for stage in recipes:
                clear_folder(folder_of(stage))
    previous: Recipe | None = None
    for stage in recipes:
        recipe = stage if previous is None else _continuing(stage, previous)
        await train(recipe, fresh=fresh)
        draw_curves(folder_of(recipe))
        previous = recipe
    return folder_of(recipes[-1])


def _continuing(recipe: Recipe, previous: Recipe) -> Recipe:
    if not recipe.continues or isinstance(recipe.model, Stage):
        return recipe
    return recipe.model_copy(update={"model": Pretrained(path=str(exported(previous)))})
