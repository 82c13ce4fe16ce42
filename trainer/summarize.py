"""Numbers of a step that describe its rollouts: rewards, lengths, faults, staleness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Any

from trainer.ops.lean import lean_prompt, lean_rollout
from trainer.types import Group, Rollout, ScoreStatus, Status


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the processes did in one step; groups by serial, without tensors."""

    groups: list[Group]
    """Trained on."""
    dropped: list[Group] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    """What rewards gave to `log_metric`."""
    traces: list[dict[str, Any]] = field(default_factory=list)
    """By group; see `Monitor.traces`."""

    @classmethod
    def merged(cls, parts: Sequence[Gathered]) -> Gathered:
        """Of all processes."""
        names = {name for part in parts for name in part.metrics}
        return cls(
            _by_serial(g for part in parts for g in part.groups),
            _by_serial(g for part in parts for g in part.dropped),
            {name: [v for part in parts for v in part.metrics.get(name, ())] for name in names},
            sorted((t for part in parts for t in part.traces), key=lambda trace: trace["group"]),
        )

    @property
    def played(self) -> list[Group]:
        """Trained and dropped."""
        return _by_serial([*self.groups, *self.dropped])


def lean(groups: Sequence[Group]) -> list[Group]:
    """Copies without tensors and images, small enough to send between processes and to log."""
    return [
        Group(
            lean_prompt(g.prompt),
            [lean_rollout(r) for r in g.rollouts],
            lean_rollout(g.baseline) if g.baseline else None,
        )
        for g in groups
    ]


def summarize(step: Gathered, version: int, right: float = 1.0) -> dict[str, float]:
    """`version`: of the weights before the update, so lag 0 is on-policy. `right`: the value from
    which an answer counts as right, for the lengths of right and wrong ones.

    Reward figures are over scored rollouts only; a step without any has none of them.
    """
    groups = step.groups
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    scored = [r.score for r in rollouts if r.score is not None and r.score.value is not None]
    values = [score.value for score in scored if score.value is not None]
    lengths = [len(r.completion) for r in rollouts]
    lags = [version - v for r in rollouts for s in r.spans for v in s.version if v >= 0]
    report: dict[str, float] = {
        "rollout/count": len(rollouts),
        "rollout/length_mean": fmean(lengths),
        "rollout/length_max": max(lengths),
        "rollout/truncated": _share(r.status is Status.TRUNCATED for r in rollouts),
        "rollout/unscored": 1 - len(scored) / len(rollouts),
        "rollout/lag_max": max(lags, default=0),
        "rollout/lag_mean": fmean(lags) if lags else 0.0,
        "group/zero_variance": _share(_one_value(group) for group in groups),
        "group/dropped": len(step.dropped),
    }
    statuses = Counter(r.score.status for g in step.played for r in g.rollouts if r.score)
    for status in ScoreStatus:
        if statuses[status] and status is not ScoreStatus.OK:
            report[f"score/{status}"] = statuses[status]
    report["score/faults"] = sum(n for status, n in statuses.items() if status.is_fault)
    for status, count in Counter(r.status for r in rollouts).items():
        if status not in (Status.OK, Status.TRUNCATED):
            report[f"rollout/{status}"] = count / len(rollouts)
    if values:
        report["reward/mean"] = fmean(values)
        report["reward/std"] = pstdev(values)
    baselines = [g.baseline.score.value for g in groups if g.baseline and g.baseline.score]
    if known := [value for value in baselines if value is not None]:
        report["reward/greedy"] = fmean(known)
    for kind, wanted in (("right", True), ("wrong", False)):
        found = [len(r.completion) for r in rollouts if _is_right(r, right) is wanted]
        if found:
            report[f"rollout/length_{kind}"] = fmean(found)
    for name in sorted({name for score in scored for name in score.parts}):
        part = [p for score in scored if (p := score.parts.get(name)) is not None]
        if part:
            report[f"reward/{name}"] = fmean(part)
    for name, metric in sorted(step.metrics.items()):
        report[f"reward/metric/{name}"] = fmean(metric)  # fmean adds exactly: order is no matter
    return report


def _is_right(rollout: Rollout, least: float) -> bool | None:
    """None: it was not scored."""
    value = rollout.score.value if rollout.score else None
    return None if value is None else value >= least


def _by_serial(groups: Iterable[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: group.prompt.serial)


def _one_value(group: Group) -> bool:
    values = {r.score.value for r in group.rollouts if r.score and r.score.value is not None}
    return len(values) <= 1


def _share(flags: Iterable[bool]) -> float:
    return fmean(map(float, flags))
