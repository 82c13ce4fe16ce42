"""How well a span of time in the reply covers the right one."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from trainer.ops import time_spans
from trainer.ops.parsing import Unparsable
from trainer.ops.time_spans import Interval
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout


class TemporalIoU(AnswerReward):
    """With P and G the predicted and right spans, each side merged first:

    tiou |P n G| / |P u G|; iop |P n G| / |P|; iog |P n G| / |G|; giou tiou - (hull - |P u G|) /
    hull in (-1, 1]; distance tiou (1 - |s - s'| / T)(1 - |e - e'| / T), s and e the outer ends, T
    the duration. Spans are seconds, mm:ss or hh:mm:ss in the reply. No span, or one that ends
    before it starts: 0 (giou -1), `unparsable`. The row has [s, e] or a list of them in `answer`,
    or in the column `span`; the duration in `duration` or `video_length`. Sources: Temporal-R1
    (arXiv:2506.01908), for the distance TimeSuite (arXiv:2410.19702).
    """

    needs = frozenset({"answer|meta.span"})
    gold_columns = ("span",)

    kind: Literal["tiou", "iop", "iog", "giou", "distance"] = "tiou"
    threshold: float | None = Field(None, gt=0, le=1)
    """1 if the value reaches it, else 0: R@threshold."""
    unit: Literal["seconds", "fraction"] = "seconds"
    """Of the reply."""
    gold_unit: Literal["seconds", "fraction"] = "seconds"
    """Of the row; `fraction` of the duration, 0 <= s < e <= 1."""
    beyond: Literal["clip", "keep", "refuse"] = "keep"
    """Of a span that goes beyond the duration."""

    @property
    def floor(self) -> float:
        return -1.0 if self.kind == "giou" and self.threshold is None else 0.0

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        right = self._gold(gold, prompt)
        found = time_spans.parse_intervals(answer)
        if not found:
            raise Unparsable("no span of time in the reply")
        if len(found) > 1000:
            raise Unparsable(f"{len(found)} spans of time, more than 1000")
        if self.unit == "fraction":
            total = self._duration(prompt)
            found = [(s * total, e * total) for s, e in found]
        if self.beyond != "keep":
            found = self._cut(found, self._duration(prompt))
        if any(end <= start for start, end in found):
            raise Unparsable("a span that does not end after its start")
        value = self.value(time_spans.merged(found), right, prompt)
        return value if self.threshold is None else value >= self.threshold

    def value(self, given: list[Interval], right: list[Interval], prompt: Prompt) -> float:
        """The formula, of merged spans in seconds."""
        inter = time_spans.shared(given, right)
        a, b = time_spans.length(given), time_spans.length(right)
        if self.kind in ("iop", "iog"):
            return inter / (a if self.kind == "iop" else b)
        union = a + b - inter
        tiou = inter / union
        first, last = (given[0][0], right[0][0]), (given[-1][1], right[-1][1])
        if self.kind == "giou":
            hull = max(last) - min(first)
            return tiou - (hull - union) / hull
        if self.kind == "distance":
            total = self._duration(prompt)
            away = (abs(ends[0] - ends[1]) / total for ends in (first, last))
            for share in away:
                tiou *= max(0.0, 1 - share)
        return tiou

    def _gold(self, gold: Any, prompt: Prompt) -> list[Interval]:
        if isinstance(gold, str):
            listed: list[Any] = [*time_spans.parse_intervals(gold)]
        else:
            listed = [gold] if not isinstance(gold[0], list | tuple) else list(gold)
        spans = [(float(start), float(end)) for start, end in listed]
        if not spans or any(not start < end for start, end in spans):
            raise ValueError(f"the row's span {gold!r} must be [start, end] with end > start")
        if self.gold_unit == "fraction":
            if any(start < 0 or end > 1 for start, end in spans):
                raise ValueError(f"the row's span {gold!r} must be a fraction; see gold_unit")
            total = self._duration(prompt)
            spans = [(start * total, end * total) for start, end in spans]
        return time_spans.merged(spans)

    def _cut(self, found: list[Interval], total: float) -> list[Interval]:
        if self.beyond == "refuse" and any(end > total for _, end in found):
            raise Unparsable(f"a span goes beyond the duration of {total:g} s")
        return [(min(start, total), min(end, total)) for start, end in found]

    def _duration(self, prompt: Prompt) -> float:
        total = prompt.meta.get("duration", prompt.meta.get("video_length"))
        if not isinstance(total, int | float) or not total > 0:
            raise ValueError(f"the column duration (seconds, above 0) is needed, got {total!r}")
        return float(total)
