"""What the text of a rollout does not show: its pictures, and log-probs and advantages by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from trainer.ops.spaces import SPACES
from trainer.ops.steps import token_ends
from trainer.ops.traces import pack, pack_ends, picture

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from trainer.monitors.base import Tracing
    from trainer.renderer import Renderer
    from trainer.types import Batch, Group, Prompt, Rollout

COLUMNS = {
    "advantage": "advantages",
    "old_logprob": "old_logprobs",
    "ref_logprob": "ref_logprobs",
    "value": "values",
}
"""Name in a trace, and the batch's field; one that is None is left out."""


class Tracer:
    """Traces of one process. Remembers the text of each token, so that a token is decoded once."""

    def __init__(self, tracing: Tracing, renderer: Renderer, share: int = 1):
        """`share`: the number of processes, which trace an equal number of groups each."""
        self.every, self.side = tracing.every, tracing.image_side
        self.limit = -(-tracing.groups // share)
        self._renderer = renderer
        self._texts: dict[int, str] = {}

    def trace(
        self, step: int, groups: Sequence[Group], dropped: Sequence[Group], batch: Batch | None
    ) -> list[dict[str, Any]]:
        """A row for each of the first `limit` groups; see `Monitor.traces`. `batch` is the one
        collated from `groups`, with advantages."""
        if step % self.every:
            return []
        kept = groups[: self.limit]
        columns = _rows_of(batch, sum(len(group.rollouts) for group in kept))
        number, rows = 0, []
        for group in kept:
            count = len(group.rollouts)
            of_rollouts = [columns.get(i, []) for i in range(number, number + count)]
            rows.append(self._group(group, of_rollouts))
            number += count
        return rows + [
            self._group(group, [[]] * len(group.rollouts)) | {"dropped": True}
            for group in dropped[: self.limit - len(kept)]
        ]

    def _group(self, group: Group, columns: list[list[dict[str, Any]]]) -> dict[str, Any]:
        row: dict[str, Any] = {
            "group": group.prompt.serial,
            "rollouts": [
                self._rollout(rollout, found)
                for rollout, found in zip(group.rollouts, columns, strict=True)
            ],
            "pictures": [picture(image, self.side) for image in _images(group.prompt)],
        }
        if group.prompt.answer is None and (boxes := _boxes(group.prompt)) is not None:
            row["gold"] = boxes
        meta = group.prompt.meta.items()
        if spaces := {n: v for n, v in meta if isinstance(v, str) and v in SPACES}:
            row["spaces"] = spaces
        return row

    def _rollout(self, rollout: Rollout, rows: list[dict[str, Any]]) -> dict[str, Any]:
        by_span: dict[int, dict[str, list[np.ndarray]]] = {}
        if rollout.score is None or rollout.score.value is None:
            rows = []  # a batch of nothing holds one idle row
        for path, columns in zip(_paths(rollout), rows, strict=False):
            start = 0
            for index in path:
                end = start + len(rollout.spans[index].tokens)
                found = by_span.setdefault(index, {})
                for name, values in columns.items():
                    found.setdefault(name, []).append(values[start:end])
                start = end
        spans = []
        for index, span in enumerate(rollout.spans):
            if not any(span.sampled):
                continue
            one: dict[str, Any] = {"span": index, "logprob": pack(span.logprobs)}
            # A span that several rows share has its mean there: with `Batch.weight`, its gradient.
            for name, several in by_span.get(index, {}).items():
                one[name] = pack(sum(several[1:], several[0]) / len(several))
            ends = token_ends(span.tokens, self._decode)
            if ends[-1] == len(span.message):
                one["ends"] = pack_ends(ends)
            spans.append(one)
        traced: dict[str, Any] = {"spans": spans}
        if sizes := rollout.meta.get("image_sizes"):
            traced["image_sizes"] = [list(map(int, size)) for size in sizes]
        return traced

    def _decode(self, tokens: Sequence[int]) -> str:
        if len(tokens) != 1:
            return self._renderer.decode(tokens)
        token = tokens[0]
        if token not in self._texts:
            self._texts[token] = self._renderer.decode(tokens)
        return self._texts[token]


def _rows_of(batch: Batch | None, rollouts: int) -> dict[int, list[dict[str, np.ndarray]]]:
    """By number of the rollout: the columns of each of its rows, for the first `rollouts`."""
    if batch is None:
        return {}
    numbers = batch.rollout.tolist()
    count = sum(number < rollouts for number in numbers)  # rows are in the order of rollouts
    fields: dict[str, Tensor | None] = {n: getattr(batch, field) for n, field in COLUMNS.items()}
    arrays = {
        name: field[:count].detach().float().cpu().numpy()
        for name, field in fields.items()
        if field is not None and field is not batch.sampled_logprobs
    }
    found: dict[int, list[dict[str, np.ndarray]]] = {}
    for row, number in enumerate(numbers[:count]):
        found.setdefault(number, []).append({name: a[row] for name, a in arrays.items()})
    return found


def _paths(rollout: Rollout) -> list[list[int]]:
    """As `collate` makes rows of them."""
    paths = map(rollout.path, rollout.leaves())
    return [path for path in paths if any(any(rollout.spans[i].sampled) for i in path)]


def _images(prompt: Prompt) -> Iterator[Any]:
    for message in prompt.messages:
        content = message.get("content")
        for part in content if isinstance(content, list | tuple) else ():
            if isinstance(part, dict) and part.get("type") == "image":
                yield part["image"]


def _boxes(prompt: Prompt) -> Any:
    """The right place of a row whose answer is a column of its own."""
    return next((prompt.meta[n] for n in ("box", "boxes", "point") if n in prompt.meta), None)
