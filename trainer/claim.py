"""The `claim:` section of a recipe file: what the method is said to do, and the runs that show it.

    claim:
      says: dynamic sampling keeps the signal when most groups saturate
      common: {steps: 60, prompts.terms: 2}          # settings of every arm; may be left out
      arms:                                          # the first is the method
        dapo: {}                                     # the recipe as it stands
        grpo: {loss: {clip_high: 0.2}, rollouts.filters: [], advantage: grpo}
      seeds: [0, 1, 2]                               # the default
      measure: {metric: heldout/sampled, take: area, holds: {rule: difference, by: 0.02}}

`cohort reproduce NAME` runs every arm with every seed, measures each run and says whether the claim
shows. An arm is settings on top of the recipe, as a tree or with dotted keys, and may change
whatever the command line may: a plug-in of another type, `stages.rl.loss`, a list.
Where arm and `common` set the same key, the arm wins. The claim belongs to the file it stands in:
a file that `extends` this one does not inherit it. Runs are at scale `tiny` unless told otherwise.

One measure or a list of them. `measure: heldout/sampled` is `{metric: heldout/sampled}`, and
`holds: mean` is `{rule: mean}`. A measure makes one number of each run (`Measure`) and compares the
method with each baseline over the seeds (`Holds`). The claim shows where every measure that decides
shows against every baseline it is compared with; it does not where one of them does not; else it
is unclear.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from trainer.ops.yaml12 import flow
from trainer.plugin import Frozen

Overrides = dict[str, Any]
Rule = Literal["difference", "apart", "mean", "as_good"]


class Holds(Frozen):
    """When a measure shows the claim. d is how much better the method is than the baseline: the
    difference of the two runs of a seed, with the sign of `better`. Intervals are Student's, 95 %,
    over the seeds; with one seed there are none, and only `mean` and a failure can be told."""

    rule: Rule = "difference"
    """`difference`: the interval of d lies above `by`. `apart`: the method's mean is better by more
    than `by`, and the arms' own intervals do not overlap. `mean`: the mean of d is above `by`, no
    interval asked. `as_good`: the interval of d lies above -`by`: no worse by more than `by`."""
    by: float = Field(0.0, ge=0)
    """In the unit of the metric (steps for `steps_to`)."""


def _rule(value: object) -> object:
    return {"rule": value} if isinstance(value, str) else value


class Measure(Frozen):
    """One number of a run."""

    metric: str
    """A key of metrics.jsonl (`reward/mean`, `rollout/length_mean`, `train/entropy`, ...), or of
    the evaluations: `heldout/sampled`, `heldout/greedy`, `heldout/pass@4`, `heldout/maj@4`, and
    of one part of the evaluation's reward `heldout/PART/sampled`: a term of `weighted`
    (`heldout/iou/sampled`), a kind of row under `route` (`heldout/color/sampled`, or with the route
    as a term `heldout/task/color/sampled`). Only evaluations have a value at step 0;
    `evaluation.every` says how often there is one."""
    take: Literal["final", "best", "area"] = "final"
    """`final`: the last value. `best`: the best one. `area`: the mean over the steps (trapezia
    between the values logged), from the first value to the last."""
    steps_to: float | None = None
    """In place of `take`: the first step at which the metric is at least this good. A run that
    never gets there counts with its last step, marked `>`, and cannot show a claim of speed."""
    window: int = Field(1, gt=0)
    """Each value is first replaced by the mean of this many latest ones: steps are noisy."""
    better: Literal["higher", "lower"] = "higher"
    """Of the metric. Fewer steps are always better for `steps_to`."""
    holds: Annotated[Holds, BeforeValidator(_rule, json_schema_input_type=Holds | Rule)] = Holds()
    against: tuple[str, ...] | None = None
    """Baselines to compare with; None: all. The others need not have the metric."""
    decides: bool = True
    """False: measured and shown, but the claim does not hang on it."""
    name: str = ""
    """What tables and plots call it; empty: made of the metric and `take`."""

    @model_validator(mode="after")
    def _one_number(self) -> Measure:
        if self.steps_to is not None and "take" in self.model_fields_set:
            raise ValueError(f"steps_to and take: {self.take} are two numbers; keep one of them")
        return self

    @property
    def title(self) -> str:
        """`name`, or `heldout/sampled, area`, `steps to reward/mean 0.8`."""
        if self.name:
            return self.name
        if self.steps_to is not None:
            return f"steps to {self.metric} {self.steps_to:g}"
        return f"{self.metric}, {self.take}"

    @property
    def sign(self) -> int:
        """1 where a larger number of a run is better, else -1."""
        return -1 if self.steps_to is not None or self.better == "lower" else 1


def _listed(value: object) -> object:
    values = value if isinstance(value, list | tuple) else [value]
    return [{"metric": one} if isinstance(one, str) else one for one in values]


_Listed = Measure | str | list[Measure | str]


class Claim(Frozen):
    """One sentence, and the runs that show it or do not."""

    says: str = Field(min_length=1)
    """The claim, in one sentence without a full stop."""
    common: Overrides = {}
    """Settings of every arm."""
    arms: dict[str, Overrides]
    """Settings by arm. The first is the method, the others are its baselines."""
    seeds: tuple[int, ...] = (0, 1, 2)
    measure: Annotated[
        tuple[Measure, ...], BeforeValidator(_listed, json_schema_input_type=_Listed)
    ]
    """What is compared; the first is the one that the plot shows large."""

    @field_validator("arms", mode="before", json_schema_input_type=dict[str, dict[str, Any] | None])
    @classmethod
    def _no_changes(cls, value: Any) -> Any:
        """`grpo:` with nothing behind it is the recipe as it stands."""
        if not isinstance(value, dict):
            return value
        return {name: {} if arm is None else arm for name, arm in value.items()}

    @model_validator(mode="after")
    def _fits_together(self) -> Claim:
        if len(self.arms) < 2:
            raise ValueError("arms: needs the method and at least one baseline to compare it with")
        for name in self.arms:
            if not name.replace("_", "").replace("-", "").isalnum() or not name.isascii():
                raise ValueError(f"arms: {name!r} names a folder; use letters, digits, _ and -")
        for key in ("seeds", "measure"):
            if not getattr(self, key):
                raise ValueError(f"{key}: needs at least one")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} holds a seed twice")
        titles = [measure.title for measure in self.measure]
        if len(set(titles)) < len(titles):
            raise ValueError(f"measure: two are called the same, {titles}; give one a `name`")
        for measure in self.measure:
            for name in measure.against or ():
                if name not in self.baselines:
                    known = ", ".join(self.baselines)
                    raise ValueError(f"measure.against: no baseline {name!r}; known: {known}")
        if not any(measure.decides for measure in self.measure):
            raise ValueError("measure: none decides; leave `decides: false` out of one")
        return self

    @property
    def method(self) -> str:
        """The first arm."""
        return next(iter(self.arms))

    @property
    def baselines(self) -> tuple[str, ...]:
        """The arms after the first."""
        return tuple(self.arms)[1:]

    def compared(self, measure: Measure) -> tuple[str, ...]:
        """The arms that a measure compares: the method and its baselines there."""
        return (self.method, *(measure.against or self.baselines))

    def overrides(self, arm: str) -> list[str]:
        """The arm as words of the command line: `loss.clip_high=0.2`, `advantage=grpo`."""
        both = [*self.common.items(), *self.arms[arm].items()]
        return [f"{key}={flow(value)}" for key, value in both]


class Stated(Frozen):
    """What of a file is read for its claim."""

    claim: Claim
