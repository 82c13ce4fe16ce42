"""The sampling loop: rows in, finished rows out one by one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import count

import torch
from transformers import PreTrainedModel

from trainer.ops.caches import Cache, DynamicCaches, PromptPath, SharedCache
from trainer.ops.sampling import Sampler, Settings
from trainer.ops.stopping import StopText

WORTH_COMPACTING = 0.75
"""Ended rows are dropped once fewer than this share of the rows is alive: copying the others'
keys costs about as much as carrying a few dead rows along."""


@dataclass(slots=True, eq=False)
class Row:
    """One reply being sampled."""

    path: PromptPath
    settings: Settings
    seed: int
    most: int
    """Tokens after which it ends with `length`."""
    stop_text: StopText | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: str = ""
    """stop | length | abort | not_finite; empty while it runs."""
    abandoned: bool = False
    """Set from any thread: nobody waits for this row any more."""

    def add(self, token: int, logprob: float, stop_ids: Collection[int]) -> None:
        if self.abandoned:
            self.finish = "abort"
        elif logprob != logprob:
            self.finish = "not_finite"
        else:
            self.tokens.append(token)
            self.logprobs.append(logprob)
            if token in stop_ids or (self.stop_text and self.stop_text.completed(self.tokens)):
                self.finish = "stop"
            elif len(self.tokens) == self.most:
                self.finish = "length"


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    rows: Sequence[Row],
    done: Callable[[Row], None],
    *,
    shared: bool,
    stop_ids: Collection[int],
    banned_ids: Sequence[int],
) -> None:
    """Samples all rows to their end and calls `done` for each as soon as it ends.

    Rows with the same `PromptPath` object share its prefill. `shared` chooses between `SharedCache`
    and `DynamicCaches`. Results do not depend on the order or the company of rows, beyond the
    rounding of matrix products. Reads no torch generator.
    """
    paths = list({id(row.path): row.path for row in rows}.values())
    place = {id(path): i for i, path in enumerate(paths)}
    live = sorted(rows, key=lambda row: place[id(row.path)])
    owner = [place[id(row.path)] for row in live]
    kind = SharedCache if shared else DynamicCaches
    cache: Cache = kind(model, paths, owner, max(row.most for row in live))
    sampler = Sampler(
        [row.settings for row in live], [row.seed for row in live], banned_ids, model.device
    )
    logits = cache.start()
    for position in count():
        tokens, logprobs = sampler.draw(logits, position)
        drawn = torch.stack((tokens.double(), logprobs.double())).tolist()  # the one sync per step
        for row, token, logprob in zip(live, *drawn, strict=True):
            if not row.finish:
                row.add(int(token), logprob, stop_ids)
                if row.finish:
                    done(row)
        alive = [i for i, row in enumerate(live) if not row.finish]
        if not alive:
            return
        if len(alive) < WORTH_COMPACTING * len(live):
            index = torch.tensor(alive, device=model.device)
            live = [live[i] for i in alive]
            tokens = tokens[index]
            sampler.keep(alive, index)
            cache.keep(alive, index)
        logits = cache.step(tokens)
