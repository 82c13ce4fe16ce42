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

    def rows(self) -> Sequence[Row]:
        return self._read(self.split)

    def holdout_rows(self) -> Sequence[Row] | None:
        return None if self.holdout_split is None else self._read(self.holdout_split)

    def origin(self, rows: Sequence[Row], index: int) -> tuple[str, Path]:
        split = getattr(rows, "split", None) or self.split
        return f"{self.path} ({split}), row {index}", self.image_folder.absolute()

    def _read(self, split: str) -> Any:
        import datasets

        try:
            if _saved(Path(self.path)):
                found = datasets.load_from_disk(self.path)
                if isinstance(found, datasets.DatasetDict):
                    if split not in found:
                        raise DataError(
                            f"prompts: {self.path} has no split {split!r}; it has: "
                            f"{', '.join(found)}"
                        )
                    found = found[split]
            else:
                found = datasets.load_dataset(
                    self.path, self.config, split=split, revision=self.revision
                )
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise DataError(
                f"prompts: cannot read data set {self.path!r} (config {self.config!r}, split "
                f"{split!r}): {error}"
            ) from error
        if not len(found):
            raise DataError(f"prompts: {self.path} ({split}): there are no rows")
        # Images stay encoded: a broken one must be met where its row can be named.
        features = datasets.Features(
            {name: _undecoded(feature) for name, feature in found.features.items()}
        )
        return found.cast(features) if features != found.features else found


def _saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _undecoded(feature: Any) -> Any:
    import datasets

    if isinstance(feature, datasets.Image):
        return datasets.Image(decode=False)
    if isinstance(feature, datasets.List):
        return datasets.List(_undecoded(feature.feature), length=feature.length)
    if isinstance(feature, dict):
        return {name: _undecoded(inner) for name, inner in feature.items()}
    return feature
