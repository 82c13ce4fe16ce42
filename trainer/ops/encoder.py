"""Sentences to unit vectors, by a frozen encoder that transformers loads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from trainer.errors import ConfigError
from trainer.plugin import Frozen

if TYPE_CHECKING:
    from torch import Tensor

_PLAIN_MODULES = ("Transformer", "Pooling", "Normalize")
_POOLING = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
    "pooling_mode_lasttoken": "last",
}
"""As sentence-transformers writes it beside a model."""


class Encoder(Frozen):
    """e(text) = pooled last hidden state, divided by its length."""

    path: str = Field(min_length=1)
    """Name on the Hub (`sentence-transformers/all-MiniLM-L6-v2`), or a folder."""
    revision: str | None = None
    pooling: Literal["auto", "mean", "first", "last"] = "auto"
    """Over the tokens of the text, padding left out. `auto`: as the model's sentence-transformers
    files say; `mean` where there are none."""
    prefix: str = ""
    """Put before every text, where the model was trained with one: `query: `."""
    max_tokens: int = Field(512, gt=0)
    """Longer texts are cut; the model's own limit holds too."""
    batch_size: int = Field(64, gt=0)
    """Texts per forward pass: memory only."""
    device: str = "cpu"

    async def open(self) -> OpenEncoder:
        """Raises ConfigError if it cannot be loaded, or is more than transformer, pooling and
        normalisation."""
        return await asyncio.to_thread(self._load)

    def _load(self) -> OpenEncoder:
        from transformers import AutoModel, AutoTokenizer

        try:
            pooling = self.pooling if self.pooling != "auto" else self._saved_pooling()
            options = {"revision": self.revision or "main"}
            tokenizer = AutoTokenizer.from_pretrained(self.path, **options)
            model = AutoModel.from_pretrained(self.path, **options)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"scoring.encoder.path: cannot read {self.path!r}: {error}"
            ) from error
        if tokenizer.pad_token_id is None:
            if tokenizer.eos_token is None:
                raise ConfigError(f"scoring.encoder.path: {self.path!r} has no padding token")
            tokenizer.pad_token = tokenizer.eos_token
        model = model.float().eval().requires_grad_(False).to(self.device)
        return OpenEncoder(self, tokenizer, model, pooling)

    def _saved_pooling(self) -> str:
        modules = self._saved("modules.json")
        if modules is None:
            return "mean"
        kinds = [str(one.get("type", "")).rpartition(".")[2] for one in modules]
        if extra := [kind for kind in kinds if kind not in _PLAIN_MODULES]:
            raise ConfigError(
                f"scoring.encoder.path: {self.path!r} has a module {extra[0]!r}, which is not "
                f"supported; choose a model of {', '.join(_PLAIN_MODULES)} alone"
            )
        folder = next(
            (m["path"] for m, k in zip(modules, kinds, strict=True) if k == "Pooling"), ""
        )
        saved = (self._saved(f"{folder}/config.json") if folder else None) or {}
        chosen = [mode for key, mode in _POOLING.items() if saved.get(key)]
        others = [
            key
            for key, value in saved.items()
            if key.startswith("pooling_mode") and value is True and key not in _POOLING
        ]
        if len(chosen) > 1 or others:
            raise ConfigError(
                f"scoring.encoder.pooling: {self.path!r} was trained with a pooling that is not "
                f"supported ({', '.join([*chosen, *others])}); choose another model"
            )
        return chosen[0] if chosen else "mean"

    def _saved(self, name: str) -> Any:
        from transformers.utils import cached_file

        found = cached_file(
            self.path,
            name,
            revision=self.revision or "main",
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
        return None if found is None else json.loads(Path(found).read_text(encoding="utf-8"))


class OpenEncoder:
    """What `Encoder.open` gives. Calls wait for each other."""

    def __init__(self, config: Encoder, tokenizer: Any, model: Any, pooling: str):
        self.config, self.pooling = config, pooling
        self._tokenizer, self._model = tokenizer, model
        most = getattr(model.config, "max_position_embeddings", None) or config.max_tokens
        self._longest = min(config.max_tokens, most, tokenizer.model_max_length)
        self._turn = asyncio.Lock()

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector of length 1 per text, in order; a text without tokens gives zeros. The other
        texts of a call never change the result beyond rounding."""
        different = list(dict.fromkeys(texts))
        async with self._turn:
            found = await asyncio.to_thread(self._embed, different)
        vectors = dict(zip(different, found, strict=True))
        return [list(vectors[text]) for text in texts]

    def _embed(self, texts: Sequence[str]) -> list[list[float]]:
        found: list[list[float]] = []
        size = self.config.batch_size
        for start in range(0, len(texts), size):
            found += self._batch(texts[start : start + size]).tolist()
        return found

    def _batch(self, texts: Sequence[str]) -> Tensor:
        import torch

        fed = self._tokenizer(
            [self.config.prefix + text for text in texts],
            padding=True,
            truncation=True,
            max_length=self._longest,
            return_tensors="pt",
        ).to(self.config.device)
        if not fed["input_ids"].shape[1]:
            return torch.zeros(len(texts), self._model.config.hidden_size)
        with torch.no_grad():
            hidden = self._model(**fed).last_hidden_state.double()
        mask = fed["attention_mask"].bool()
        vectors = pooled(hidden, mask, self.pooling)
        return torch.nn.functional.normalize(vectors, dim=-1).cpu()


def pooled(hidden: Tensor, mask: Tensor, how: str) -> Tensor:
    """[B, D] from hidden [B, T, D] and mask b[B, T], padded on either side. `mean`, `first` or
    `last` of the masked positions; zeros for a row without any."""
    import torch

    weight = mask.to(hidden.dtype)
    if how == "mean":
        return (hidden * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp(min=1)
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    if how == "first":
        at = places.masked_fill(~mask, mask.shape[1]).amin(1).clamp(max=mask.shape[1] - 1)
    else:
        at = places.masked_fill(~mask, 0).amax(1)
    chosen = hidden[torch.arange(len(hidden), device=hidden.device), at]
    return chosen * mask.any(1, keepdim=True)
