"""The model that another stage of the same recipe has trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import Field

from trainer.errors import ConfigError
from trainer.models.base import Model

if TYPE_CHECKING:
    from trainer.renderer import Renderer


class Stage(Model):
    """`model: {type: stage, stage: sft}`: the weights that stage `sft` exported. A reward may name
    one too: the process reward model of stage `prm`, say. When the stage begins it becomes the
    exported folder, which is what the run's resolved recipe names."""

    stage: str = Field(min_length=1)
    """Its name under `stages`."""

    def config(self) -> Any:
        self._refuse()

    def renderer(self) -> Renderer:
        self._refuse()

    def load(self, *, dtype: str, attn_implementation: str | dict[str, str]) -> Any:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError(
            f"model.stage: {self.stage!r} is known only inside of a run of its recipe, after that "
            "stage; elsewhere name the folder: {type: pretrained, path: .../model}"
        )
