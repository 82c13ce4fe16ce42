"""Contract of `weights:`: brings the policy's weights into the engine and proves it."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainer.errors import StaleWeights
from trainer.plugin import Plugin

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from trainer.engines.base import Engine
    from trainer.policies.base import Policy
    from trainer.renderer import Rendered

    Row = tuple[list[int], dict[str, Any]]
    """Token ids and model inputs."""

_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.1}


class Publisher(Plugin):
    family: ClassVar[str] = "trainer.weights"

    tolerance: float | None = Field(None, gt=0)
    """Largest allowed |logprob(engine) - logprob(policy)| on the probe, in nats. None: 1e-4 where
    both compute in float32, 0.1 in half precision."""

    async def publish(
        self, policy: Policy, engine: Engine, version: int, probe: list[Row]
    ) -> dict[str, float]:
        """Transfers, then calls `prove`. Returns numbers to log."""
        raise NotImplementedError

    async def prove(self, policy: Policy, engine: Engine, version: int, probe: list[Row]) -> float:
        """Largest gap between both sides on the probe; raises `StaleWeights` above tolerance."""
        theirs = await engine.logprobs(probe)
        ours = await asyncio.to_thread(policy.probe, probe)
        gaps = (
            abs(a - b)
            for row, other in zip(theirs, ours, strict=True)
            for a, b in zip(row, other, strict=True)
            if a != b  # a banned placeholder has -inf on both sides, and inf - inf is no number
        )
        gap = max(gaps, default=0.0, key=lambda gap: (math.isnan(gap), gap))
        limit = self.tolerance or max(_TOLERANCE[policy.precision], _TOLERANCE[engine.precision])
        if not gap <= limit:
            suspect = await self._suspect(policy, engine)
            raise StaleWeights(
                f"after the sync of version {version} the engine's log-probs differ from the "
                f"policy's by {gap:.3g} nats on the probe (allowed: {limit:.3g}): it serves other "
                f"weights, or computes in another precision (then set weights.tolerance). {suspect}"
            )
        return gap

    async def _suspect(self, policy: Policy, engine: Engine) -> str:
        """Says which weight the engine has wrong, as far as it can be read back."""
        from trainer.ops.sketches import most_different

        names = [name for name, _ in policy.weights()]
        theirs = await engine.sketches(names)
        worst = await asyncio.to_thread(most_different, policy.weights(), theirs)
        if worst is None:
            return "The engine cannot say which weight it is"
        name, difference = worst
        if difference < 1e-2:
            return f"All {len(theirs)} weights that could be read back are the policy's"
        return f"The weight that differs most is {name} (by {difference:.0%} of its size)"


def probe_rows(prompt: Rendered, vocabulary: int, banned: Iterable[int], n: int = 24) -> list[Row]:
    """Two fixed rows: a real prompt (with its images) followed by `n` ids spread over the
    vocabulary, so that every part of a tied head is used, and those ids alone."""
    allowed = sorted(set(range(vocabulary)) - set(banned))
    stride = max(1, len(allowed) // n)
    spread = [allowed[i * stride % len(allowed)] for i in range(n)]
    return [([*prompt.tokens, *spread], prompt.inputs), (spread, {})]
