"""Rows of a Hugging Face data set: by name on the Hub, a folder of files, or one saved to disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.errors import DataError
from trainer.prompts.base import Row, Table


class Hub(Table):
    path: str
    """Name on the Hub (`openai/gsm8k`), a folder that `datasets.load_dataset` reads, or one that
    `Dataset.save_to_disk` wrote."""
    config: str | None = None
    """Configuration (subset) of the data set: `main` for `openai/gsm8k`."""
    split: str = "train"
    """Also a slice: `train[:1000]`."""
    holdout_split: str | None = None
    """Split with the held-out rows; None cuts `holdout` of them out of `split`."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    image_folder: Path = Path()
    """Folder that image paths in the data are relative to."""

    def rows(self) -> HubRows:
        return self._read(self.split)

    def holdout_rows(self) -> HubRows | None:
        return None if self.holdout_split is None else self._read(self.holdout_split)

    def origin(self, rows: Sequence[Row], index: int) -> tuple[str, Path]:
        return f"{rows.name}, row {index}", self.image_folder.absolute()  # type: ignore[attr-defined]

    def _read(self, split: str) -> HubRows:
        import datasets
        from datasets.exceptions import DatasetsError

        try:
            if _saved(Path(self.path)):
                found = datasets.load_from_disk(self.path)
                if isinstance(found, datasets.DatasetDict):
                    if split not in found:
                        raise DataError(
                            f"prompts: {self.path} has no split {split!r}; it has: "
                            f"{', '.join(map(str, found))}"
                        )
                    found = found[split]
            else:
                found = datasets.load_dataset(
                    self.path, self.config, split=split, revision=self.revision
                )
        # IndexError: what an empty saved data set gives
        except (OSError, ValueError, IndexError, DatasetsError) as error:
            raise DataError(
                f"prompts: cannot read data set {self.path!r} (config {self.config!r}, split "
                f"{split!r}), or it has no rows: {error.__cause__ or error}"
            ) from error
        return HubRows(found, f"{self.path} ({split})")


class HubRows(Sequence[Row]):
    """Rows as Arrow holds them. Images stay encoded, as `{bytes, path}`: a broken one is met where
    its row can be named."""

    def __init__(self, found: Any, name: str):
        self.name = name
        self._found = found.with_format("arrow")

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        index = range(len(self))[index]
        return self._found[index : index + 1].to_pylist()[0]


def _saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()
