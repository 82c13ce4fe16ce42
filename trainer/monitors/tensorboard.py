"""TensorBoard scalars and sample answers, in `<run>/tensorboard`."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr

from trainer.errors import MissingService
from trainer.monitors.base import Monitor, evaluation_figures

if TYPE_CHECKING:
    from trainer.context import Context


class Tensorboard(Monitor):
    """Needs the package `tensorboard`; raises `MissingService` without it."""

    _writer: Any = PrivateAttr(default=None)
    _options: dict[str, Any] = PrivateAttr(default_factory=dict)
    _purge: bool = PrivateAttr(default=False)

    @asynccontextmanager
    async def open(self, context: Context, recipe: dict[str, Any]) -> AsyncIterator[None]:
        try:
            import torch.utils.tensorboard  # noqa: F401  (fails without the package)
        except ImportError as error:
            raise MissingService(
                "monitors: tensorboard is not installed; pip install tensorboard, or take it out "
                "of `monitors`"
            ) from error
        self._writer = None
        self._purge = context.resuming
        folder = context.folder / "tensorboard"
        if not context.resuming:
            shutil.rmtree(folder, ignore_errors=True)
        self._options = {"log_dir": str(folder)}
        try:
            yield
        finally:
            if self._writer is not None:
                self._writer.close()

    def log(self, step: int, report: dict[str, Any], timing: dict[str, float]) -> None:
        writer = self._at(step)
        for key, value in (report | timing).items():
            if isinstance(value, int | float):
                writer.add_scalar(key, value, step)
        writer.flush()

    def evaluation(self, step: int, table: dict[str, Any]) -> None:
        writer = self._at(step)
        for key, value in evaluation_figures(table).items():
            writer.add_scalar(key, value, step)
        for index, row in enumerate(table["examples"]):
            writer.add_text(
                f"sample_{index}",
                f"{row['prompt']}\n\n**sampled** {row['sampled']}\n\n**greedy** {row['greedy']}\n\n"
                f"**gold** {row['answer']}",
                step,
            )

    def _at(self, step: int) -> Any:
        """The writer, made at the first step logged: what an earlier attempt wrote from there on
        is hidden by TensorBoard."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            purge = step if self._purge else None
            self._writer = SummaryWriter(purge_step=purge, **self._options)
        return self._writer
