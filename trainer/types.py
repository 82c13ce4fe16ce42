"""The nouns of Cohort; every other module is a verb acting on them.

Shape letters: B rows (one per root-to-leaf path of a rollout), T positions (tokens of the path,
prompt included), G rollouts of one prompt, n tokens of one span.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # rewards run in worker processes that must start fast: no torch import here
    from torch import Tensor


class Status(StrEnum):
    """How a rollout ended."""

    OK = "ok"
    TRUNCATED = "truncated"
    TOOL_ERROR = "tool_error"
    ENV_ERROR = "env_error"
    TIMEOUT = "timeout"
    ABORTED = "aborted"

    @property
    def unplayed(self) -> bool:
        """It ended through no doing of the policy: not scored, no fault of the reward."""
        return self in (Status.ENV_ERROR, Status.TIMEOUT, Status.ABORTED)


class ScoreStatus(StrEnum):
    """How scoring went. Everything from `RAISED` on is a fault and counts against the budget."""

    OK = "ok"
    NOT_APPLICABLE = "not_applicable"
    """The reward does not apply to this row; the value is None by intent."""
    UNPARSABLE = "unparsable"
    """The answer could not be parsed; the value is what the reward gives for that, often 0."""
    RAISED = "raised"
    TIMEOUT = "timeout"
    NOT_FINITE = "not_finite"
    WRONG_LENGTH = "wrong_length"
    CRASHED = "crashed"
    """The scoring process died (`sys.exit`, segmentation fault, out of memory)."""

    @property
    def is_fault(self) -> bool:
        return self not in (ScoreStatus.OK, ScoreStatus.NOT_APPLICABLE, ScoreStatus.UNPARSABLE)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question. `messages` are chat messages; content is a string or a list of parts
    `{"type": "text", "text": str}` | `{"type": "image", "image": PIL.Image}`."""

    id: str
    messages: tuple[dict[str, Any], ...]
    answer: Any = None
    task: str | None = None
    """Kind of the row; `route` chooses a reward by it."""
    meta: dict[str, Any] = field(default_factory=dict)
    """The whole data row."""
    serial: int = 0
    """Position in the run's stream of prompts: with the run's seed it fixes every sample."""
    origin: str = ""
    """How errors name the data row: `data/train.jsonl:17`."""


@dataclass(slots=True)
class Span:
    """A node of the rollout tree. It stores only what it adds to the path from the root.

    Example: a single-turn rollout is [prompt span (sampled all False), reply span (all True)].
    """

    parent: int | None
    """Index of the parent span in `Rollout.spans`; None for a root."""
    role: str
    author: str
    """policy | data | tool | environment | judge | teacher."""
    message: str
    """Text view of `tokens`; a view only, it is never encoded again."""
    tokens: list[int]  # [n]
    sampled: list[bool]  # [n] True where the policy chose the token
    logprobs: list[float]  # [n] under the sampling distribution; 0 where not sampled
    version: list[int]  # [n] weights that produced the token; -1 where not sampled
    inputs: dict[str, Any] = field(default_factory=dict)
    """Model inputs besides tokens: pixel_values f[patches, d], image_grid_thw i[images, 3]."""


@dataclass(slots=True)
class Score:
    """What a reward says of one rollout. `None` means "could not be scored" and is never 0."""

    value: float | None = None
    spans: dict[int, float] = field(default_factory=dict)
    """Turn or step rewards by span index; they land on the span's last token."""
    tokens: dict[int, list[float]] = field(default_factory=dict)
    """Token rewards by span index, [n] each."""
    parts: dict[str, float | None] = field(default_factory=dict)
    """Components: logged, and usable by advantages through `Batch.parts`."""
    status: ScoreStatus = ScoreStatus.OK
    reason: str = ""
    """For a fault: exception type and message, as shown in the report."""
    steps: dict[int, list[int]] = field(default_factory=dict)
    """Step ends by span index: places in `tokens` of the last token of each step, rising. The
    step's score is the token reward there, and may be 0."""
    artifacts: dict[str, bytes] = field(default_factory=dict)
    """What grading in a worker hands to the rest of its reward in the trainer's process, such as
    the PNG of a picture that it rendered. Never logged or kept."""

    @classmethod
    def fault(cls, status: ScoreStatus, reason: str) -> Score:
        return cls(value=None, status=status, reason=reason)

    @property
    def total(self) -> float | None:
        """The return: the value and all turn and token rewards; None if it could not be scored."""
        if self.value is None:
            return None
        return self.value + sum(self.spans.values()) + sum(map(sum, self.tokens.values()))


@dataclass(slots=True)
class Rollout:
    """One attempt at a prompt: a tree of spans, usually a chain."""

    spans: list[Span] = field(default_factory=list)
    status: Status = Status.OK
    score: Score | None = None
    artifacts: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    member: int | None = None
    """Its number in the group that it was played in; None where nobody played."""

    def leaves(self) -> list[int]:
        """Indices of spans without children, in order."""
        parents = {span.parent for span in self.spans}
        return [i for i in range(len(self.spans)) if i not in parents]

    def path(self, leaf: int | None) -> list[int]:
        """Span indices from the root to `leaf`; [] for None."""
        path = []
        while leaf is not None:
            path.append(leaf)
            leaf = self.spans[leaf].parent
        return path[::-1]

    @property
    def reply(self) -> str:
        """Text of the last span the policy wrote; "" if there is none."""
        return next((s.message for s in reversed(self.spans) if s.author == "policy"), "")

    @property
    def completion(self) -> list[int]:
        """Token ids the policy sampled, over all spans in order."""
        return [t for s in self.spans for t, own in zip(s.tokens, s.sampled, strict=True) if own]


@dataclass(slots=True)
class Group:
    """A prompt and its G rollouts: the unit of scoring, filtering and advantage."""

    prompt: Prompt
    rollouts: list[Rollout]
    baseline: Rollout | None = None
    """A further answer, scored by itself and never trained on: its return is `Batch.parts`
    `greedy` of the group's rows. Filters, group statistics and counts do not see it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows ready for the optimiser; right-padded to T. Never changed in place: use `with_`.

    `rewards.sum(-1)` is the return of a row: an outcome sits on its last sampled position, a
    turn reward on its span's last position, a token reward in place.
    """

    tokens: Tensor  # i[B, T]
    mask: Tensor  # b[B, T] True where the policy sampled the token: the actions
    length: Tensor  # i[B] tokens of the row, padding excluded
    turn: Tensor  # i[B, T] index of the sampled turn, -1 elsewhere
    version: Tensor  # i[B, T] weights that sampled the token, -1 elsewhere
    rewards: Tensor  # f[B, T]
    weight: Tensor  # f[B, T] 1 / rows that contain the token, so a shared token counts once
    group: Tensor  # i[B]
    rollout: Tensor  # i[B]
    sampled_logprobs: Tensor  # f[B, T] of the engine's sampling distribution
    inputs: tuple[dict[str, Any], ...] = ()
    """Per row. Rows that share an image share the very same tensors."""
    old_logprobs: Tensor | None = None  # f[B, T] of the policy before the update
    ref_logprobs: Tensor | None = None  # f[B, T]
    values: Tensor | None = None  # f[B, T]
    advantages: Tensor | None = None  # f[B, T]
    returns: Tensor | None = None  # f[B, T]
    outcome: Tensor | None = None  # f[B] `Score.value`: the return without turn and token rewards
    truncated: Tensor | None = None  # b[B] the answer was cut off
    parts: dict[str, Tensor] = field(default_factory=dict)  # {name: f[B]}, NaN where None
    extra: dict[str, Tensor] = field(default_factory=dict)
    """{name: [B, T]}. Where some row has turn or token rewards, `process` f holds them without the
    outcome; where some row has steps, `step_end` b is True on the last token of each."""

    def with_(self, **changes: Any) -> Batch:
        """A copy with some fields replaced."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the current policy says of a batch, with gradient. 0 outside the action mask."""

    logprobs: Tensor  # f[B, T]
    entropy: Tensor | None = None  # f[B, T]
    values: Tensor | None = None  # f[B, T]
