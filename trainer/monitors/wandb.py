"""Weights & Biases. `mode: offline` writes to the run folder; `wandb sync` sends it later."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PrivateAttr

from trainer.errors import MissingService
from trainer.monitors.base import Monitor, evaluation_figures

if TYPE_CHECKING:
    from trainer.context import Context

ID_FILE = "wandb_id"


class Wandb(Monitor):
    """Needs the package `wandb`; raises `MissingService` without it. A resumed run goes on under
    the same id."""

    project: str = "cohort"
    entity: str | None = None
    mode: Literal["online", "offline", "disabled"] = "online"
    tags: tuple[str, ...] = ()

    _run: Any = PrivateAttr(default=None)

    @asynccontextmanager
    async def open(self, context: Context, recipe: dict[str, Any]) -> AsyncIterator[None]:
        try:
            import wandb
        except ImportError as error:
            raise MissingService(
                "monitors: wandb is not installed; pip install wandb, or take it out of `monitors`"
            ) from error
        id_file = context.folder / ID_FILE
        if not (context.resuming and id_file.exists()):
            id_file.write_text(secrets.token_hex(4))
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=context.folder.name,
            id=id_file.read_text().strip(),
            resume="allow" if self.mode == "online" else None,
            config=recipe,
            tags=self.tags,
            dir=str(context.folder),
            mode=self.mode,
            settings=wandb.Settings(silent=True, console="off"),
        )
        failed = True
        try:
            yield
            failed = False
        finally:
            self._run.finish(exit_code=int(failed))

    def log(self, step: int, report: dict[str, Any], timing: dict[str, float]) -> None:
        self._run.log(report | timing, step=step, commit=True)

    def evaluation(self, step: int, table: dict[str, Any]) -> None:
        import wandb

        columns = ["prompt", "answer", "sampled", "greedy", "reward"]
        examples = wandb.Table(columns=[*columns])
        for row in table["examples"]:
            examples.add_data(*(str(row[name]) for name in columns))
        values = evaluation_figures(table) | {"evaluation/examples": examples}
        self._run.log(values, step=step)  # wandb adds what `log` gives for the same step
