"""The recipe: one tree that says everything about a run. Importing it loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from trainer.advantages.base import Advantage
from trainer.engines.base import Engine, Sampling
from trainer.filters.base import Filter
from trainer.learning import Optimizer
from trainer.losses.base import Loss
from trainer.models.base import Model
from trainer.modifiers.base import Modifier
from trainer.monitors.base import Monitor
from trainer.ops.encoder import Encoder
from trainer.ops.image_encoder import ImageEncoder
from trainer.ops.lpips import Lpips
from trainer.plugin import Frozen
from trainer.policies.base import Policy
from trainer.prompts.base import Prompts
from trainer.rewards.base import Reward
from trainer.rollouts.base import Agent
from trainer.weights.base import Publisher


class Rollouts(Frozen):
    """How many answers, from whom, how fresh."""

    agent: Agent = Field("single_turn", validate_default=True)
    groups_per_step: int = Field(8, gt=0)
    """Prompts per optimiser step, over all processes."""
    group_size: int = Field(8, gt=0)
    """Answers per prompt."""
    max_lag: int = Field(0, ge=0)
    """How many versions old a token may be when it is trained on; 0 is synchronous. Above 0
    generation goes on during the update: see `learner.old_logprobs` and the modifier `tis`."""
    sampling: Sampling = Sampling()
    filters: tuple[Filter, ...] = ()
    filters_patience: int = Field(64, gt=0)
    """Groups dropped in a row before the run stops with the histogram of reasons."""


MODELS = {
    "encoder": "{path: sentence-transformers/all-MiniLM-L6-v2}",
    "image_encoder": "{path: facebook/dinov2-base}",
    "lpips": "{weights: [alexnet-owt-7be5be79.pth, lpips/weights/v0.1/alex.pth]}",
}
"""Frozen models that rewards may share, fields of `scoring`, with an example of each."""


class Scoring(Frozen):
    """The border around rewards."""

    deadline: float = Field(10.0, gt=0)
    """Seconds one rollout may take to score. The code that a reward runs in a sandbox has its own
    limits, which come on top."""
    workers: int = Field(2, gt=0)
    """Worker processes for rule rewards."""
    fault_budget: float = Field(0.1, ge=0, le=1)
    """Share of failed samples, over the last `fault_window`, above which the run stops."""
    fault_window: int = Field(256, gt=0)
    encoder: Encoder | None = None
    """Sentence encoder for rewards that compare meanings (`text/similarity`, `ctx.embed`)."""
    image_encoder: ImageEncoder | None = None
    """For rewards that compare pictures by their features (`vision/embedding`, `embedding_weight`
    of `vision/svg` and `vision/chart_code`, `ctx.embed_images`)."""
    lpips: Lpips | None = None
    """For rewards that compare how pictures look (`vision/lpips`, `lpips_weight`, `ctx.lpips`)."""

    @property
    def services(self) -> tuple[str, ...]:
        """Names of the frozen models that are loaded, as rewards have them in `needs`."""
        return tuple(name for name in MODELS if getattr(self, name) is not None)


class Learner(Optimizer):
    """The policy's optimiser step."""

    old_logprobs: Literal["auto", "recompute", "sampled"] = "auto"
    """Denominator of the ratio, and the policy that `tis` and `decoupled_ppo` compare with the
    engine's. `sampled`: what the engine reported (bypass: the ratio itself corrects the distance).
    `recompute`: a forward pass before the update. `auto`: `sampled` where rollouts may be stale
    (`rollouts.max_lag` > 0) and nothing else corrects that; else no pass at all where one update
    per batch makes the ratio 1 by construction; else `recompute`."""
    no_signal_steps: int = Field(20, ge=0)
    """Steps in a row without any non-zero advantage before the run stops; 0 never stops."""


class CriticOptimizer(Optimizer):
    """The critic's optimiser step."""

    lr: float = Field(1e-5, gt=0)
    """verl's default; 5 to 10 times the policy's is usual."""


class Critic(Frozen):
    """A second model that predicts returns, for advantages that need `values`."""

    policy: Policy | None = None
    """Its network, with `head: value`; None: the policy's settings, with that head in place of
    the language model's."""
    model: Model | None = None
    """Its start weights; None: the policy's."""
    loss: Loss = Field("value_clip", validate_default=True)
    learner: CriticOptimizer = CriticOptimizer()
    warmup_steps: int = Field(0, ge=0)
    """First steps in which only the critic learns. The policy's own `learner.warmup_steps` and
    schedule begin after them."""

    @model_validator(mode="after")
    def _predicts_values(self) -> Critic:
        if self.policy is not None and self.policy.head != "value":
            raise ValueError(f"critic.policy.head: must be value, is {self.policy.head}")
        if self.policy is not None and self.policy.value_at != "before":
            raise ValueError(
                "critic.policy.value_at: a critic judges the state before an action is taken; set "
                f"before, not {self.policy.value_at}"
            )
        if not self.loss.trains_values:
            raise ValueError(
                f"critic.loss: {self.loss.name()} does not train values; use value_clip"
            )
        return self


class Reference(Frozen):
    """The model that KL terms and rewards compare with; loaded only if some plug-in needs it."""

    kind: Literal["frozen", "ema"] = "frozen"
    """`frozen`: the start weights (with LoRA: the adapter switched off). `ema`: follows."""
    decay: float = Field(0.99, ge=0, lt=1)
    """Share of the old reference kept at each update of an `ema`."""
    every: int = Field(1, gt=0)
    """Steps between updates of an `ema`."""


class Evaluation(Frozen):
    """Held-out prompts, sampled and greedy side by side."""

    every: int = Field(0, ge=0)
    """Steps between evaluations; 0: only before the first and after the last step."""
    limit: int | None = Field(None, gt=0)
    """At most this many held-out prompts."""
    samples: int = Field(1, gt=0)
    """Sampled answers per prompt: pass@k and maj@k for every k up to it."""
    greedy: bool = True
    temperature: float = Field(1.0, gt=0)
    agent: Agent | None = None
    """Who answers held-out prompts; None: who plays in training. Supervised runs, which replay
    recorded answers, are evaluated with `single_turn` here and not at all without."""
    reward: Reward | None = None
    """What to report; None takes the recipe's reward."""
    best_of: Reward | None = None
    """Chooses one of the sampled answers: `best@k` is the reward of the first k's one that this one
    scores highest, `vote@k` that of the answer with the largest sum of sigma(score). An answer that
    it cannot score is chosen last."""
    name: str = "reward"
    """What to call it: accuracy, mean IoU, ..."""
    threshold: float = 1.0
    """An answer counts as right in pass@k from this value on."""

    @field_validator("agent")
    @classmethod
    def _samples(cls, value: Agent | None) -> Agent | None:
        if value is not None and not value.samples:
            raise ValueError(f"{value.name()} replays recorded answers; take one that samples")
        return value


class Checkpointing(Frozen):
    every: int = Field(50, gt=0)
    """Steps between checkpoints; the last step always has one."""
    keep: int = Field(2, gt=0)
    """Newest checkpoints kept."""
    export: Literal["every", "last", "never"] = "last"
    """When a checkpoint also holds `model/`, which transformers' `from_pretrained` loads."""


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Recipe(Frozen):
    """One stage of one run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")
    """Folder under `output`."""
    description: str = ""
    stage: str = "rl"
    output: Path = Path("runs")
    seed: int = 0
    steps: int = Field(gt=0)
    threads: int | None = Field(None, gt=0)
    """CPU threads of torch; None leaves torch's choice."""
    continues: bool = True
    """A stage after the first starts from the weights that the one before it exported; false: from
    its own `model`, which is what a stage that names a `model` itself gets."""
    model: Model
    policy: Policy = Field("causal_lm", validate_default=True)
    engine: Engine = Field("hf", validate_default=True)
    weights: Publisher = Field("in_process", validate_default=True)
    prompts: Prompts
    rollouts: Rollouts = Rollouts()
    reward: Reward = Field("none", validate_default=True)
    scoring: Scoring = Scoring()
    advantage: Advantage = Field("grpo", validate_default=True)
    loss: Loss = Field("ppo_clip", validate_default=True)
    modifiers: tuple[Modifier, ...] = ()
    critic: Critic | None = None
    reference: Reference = Reference()
    learner: Learner = Learner()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpointing = Checkpointing()
    monitors: Annotated[tuple[Monitor, ...], BeforeValidator(_listed)] = Field(
        ("console", "jsonl", "traces"), validate_default=True
    )

    @property
    def needs(self) -> frozenset[str]:
        """Batch fields that some plug-in needs filled before the update."""
        found = self.advantage.needs | self.loss.needs
        for modifier in self.modifiers:
            found |= modifier.needs
        return found

    @property
    def reference_scores(self) -> bool:
        """Whether some reward asks the reference for log-probs."""
        asked = (self.reward, self.evaluation.reward, self.evaluation.best_of)
        return any("reference" in reward.needs for reward in asked if reward is not None)

    @property
    def samples(self) -> bool:
        """Whether the policy writes answers, in training or in evaluations: an engine is opened."""
        return self.rollouts.agent.samples or self.evaluation.agent is not None

    @property
    def old_logprobs(self) -> Literal["recompute", "sampled", "none"]:
        """What `learner.old_logprobs` comes to in this recipe; `none`: the training forward's own
        log-probs stand in for them."""
        asked, needs = self.learner.old_logprobs, self.needs
        if asked != "auto":
            return asked
        if "old_logprobs" in needs:
            return "recompute"
        stale = self.rollouts.max_lag > 0 and self.rollouts.agent.samples
        if stale and "sampled_logprobs" not in needs:
            return "sampled"
        return "recompute" if self.learner.epochs * self.learner.minibatches > 1 else "none"

    @property
    def critic_policy(self) -> Policy | None:
        """The critic's network, or None without a critic."""
        if self.critic is None:
            return None
        if self.critic.policy is not None:
            return self.critic.policy
        return self.policy.model_copy(update={"head": "value"})

    @model_validator(mode="after")
    def _values_have_a_source(self) -> Recipe:
        wanted = "values" in self.needs
        if self.policy.head == "value" and self.samples:
            raise ValueError("policy.head: value cannot write answers; use lm, or both")
        if self.loss.trains_values:
            raise ValueError(
                f"loss: {self.loss.name()} trains a critic, not the policy: put it under "
                "critic.loss, and a policy's loss here, such as ppo_clip"
            )
        if self.loss.trains_judge != (self.policy.head == "value"):
            raise ValueError(
                f"loss: {self.loss.name()} trains a value head: set policy.head: value"
                if self.loss.trains_judge
                else f"policy.head: value has no log-probs for loss: {self.loss.name()}; use a "
                "loss of reward models (step_bce, bradley_terry), or head: lm"
            )
        if self.critic is not None and self.policy.head == "both":
            raise ValueError(
                "policy.head: both and critic: are two sources of values; keep one of them"
            )
        if wanted and self.critic is None and self.policy.head == "lm":
            who = [
                p.name()
                for p in (self.advantage, self.loss, *self.modifiers)
                if "values" in p.needs
            ]
            raise ValueError(
                f"{who[0]} needs values: add `critic: {{}}` (a model of its own), or "
                "`policy: {head: both}` with the modifier `value` (shared trunk)"
            )
        if self.critic is not None and not wanted:
            raise ValueError(
                "critic: nothing in this recipe reads its values; use advantage: gae, or leave "
                "critic out"
            )
        if self.policy.head == "both" and not any(m.trains_values for m in self.modifiers):
            raise ValueError(
                "policy.head: both has a value head that nothing trains: add the modifier `value`"
            )
        return self

    @model_validator(mode="after")
    def _corrections_have_a_gap(self) -> Recipe:
        if "sampled_logprobs" not in self.needs:
            return self
        who = [p.name() for p in (self.loss, *self.modifiers) if "sampled_logprobs" in p.needs]
        weighing = [p.name() for p in self.modifiers if p.scales_loss and p.name() in who]
        if "sampled_logprobs" in self.loss.needs:
            weighing.insert(0, self.loss.name())
        if len(weighing) > 1:
            raise ValueError(
                f"{' and '.join(weighing)} would each weigh by the distance between engine and "
                "policy: keep one of them"
            )
        if self.learner.old_logprobs == "sampled":
            raise ValueError(
                f"learner.old_logprobs: with `sampled` the ratio corrects the distance between "
                f"engine and policy, and {who[0]} would find none: use auto, or leave {who[0]} out"
            )
        if not self.rollouts.agent.samples:
            raise ValueError(
                f"{who[0]} needs the engine's log-probs, and rollouts.agent: "
                f"{self.rollouts.agent.name()} replays answers without any: leave {who[0]} out"
            )
        return self

    @model_validator(mode="after")
    def _baseline_is_played(self) -> Recipe:
        agent = self.rollouts.agent
        if self.advantage.needs_baseline and not agent.gives_baseline:
            raise ValueError(
                f"advantage: {self.advantage.name()} compares with a greedy answer, which "
                f"rollouts.agent: {agent.name()} does not play: set rollouts.agent to "
                f"{{type: greedy_baseline, agent: {agent.name()}}}"
            )
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        sampling, rollouts = self.rollouts.sampling, self.rollouts
        if sampling.truncates_support and self.rollouts.agent.samples:
            raise ValueError(
                "rollouts.sampling: top_p, top_k and min_p cut tokens out of the sampling "
                "distribution, so the importance ratio against the policy would be biased; set "
                "top_p=1, top_k=0, min_p=0"
            )
        if sampling.temperature == 0 and rollouts.agent.samples:
            raise ValueError("rollouts.sampling.temperature: greedy rollouts have no log-probs")
        if rollouts.groups_per_step % self.learner.minibatches:
            raise ValueError(
                f"learner.minibatches: {self.learner.minibatches} does not divide "
                f"rollouts.groups_per_step = {rollouts.groups_per_step}"
            )
        if self.critic is not None and rollouts.groups_per_step % self.critic.learner.minibatches:
            raise ValueError(
                f"critic.learner.minibatches: {self.critic.learner.minibatches} does not divide "
                f"rollouts.groups_per_step = {rollouts.groups_per_step}"
            )
        return self
