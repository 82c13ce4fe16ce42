"""A reward that counts only where another one, the gate, is high enough."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from trainer.rewards.base import CompositeReward, Reward, RewardContext, named_parts
from trainer.types import Group, Prompt, Score


class Gated(CompositeReward):
    """value = reward if gate >= threshold, else `otherwise`.

    Only rollouts that pass the gate are scored further, so a costly reward may stand behind a
    cheap gate; a group-relative reward then sees a smaller group. A gate that fails or does not
    apply passes its status on. Parts: `gate` and `reward`.
    """

    pointwise = True

    gate: Reward
    reward: Reward
    threshold: float = Field(1.0, allow_inf_nan=False)
    otherwise: float = Field(0.0, allow_inf_nan=False)
    """Value where the gate is closed."""

    def children(self) -> dict[str, Reward]:
        return {"gate": self.gate, "reward": self.reward}

    def alone(self, prompt: Prompt) -> list[Reward]:
        whole = super().alone(prompt)
        return whole if whole == [self] else self.gate.alone(prompt)

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        gates = await ctx.score(self.gate, group)
        is_open = [gate.value is not None and gate.value >= self.threshold for gate in gates]
        passed = [r for r, opened in zip(group.rollouts, is_open, strict=True) if opened]
        inner = iter(await ctx.score(self.reward, Group(group.prompt, passed)))
        return [
            self._through(gate, next(inner)) if opened else self._closed(gate)
            for gate, opened in zip(gates, is_open, strict=True)
        ]

    @staticmethod
    def _through(gate: Score, inner: Score) -> Score:
        parts = named_parts("gate", gate) | named_parts("reward", inner)
        return replace(inner, parts=parts)

    def _closed(self, gate: Score) -> Score:
        value = None if gate.value is None else self.otherwise
        parts = named_parts("gate", gate) | {"reward": None}
        reason = f"gate: {gate.reason}" if gate.reason else ""
        return Score(value=value, parts=parts, status=gate.status, reason=reason)
