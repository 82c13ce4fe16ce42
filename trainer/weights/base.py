"""Contract of `weights:`: brings the policy's weights into the engine and proves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainer.plugin import Plugin

if TYPE_CHECKING:
    from trainer.engines.base import Engine
    from trainer.policies.base import Policy


class Publisher(Plugin):
    family: ClassVar[str] = "trainer.weights"

    tolerance: float | None = None
    """Largest allowed |logprob(engine) - logprob(policy)| on the probe, in nats. None chooses by
    dtype: 1e-4 for float32, 0.05 for half precision."""

    async def publish(self, policy: Policy, engine: Engine, version: int) -> dict[str, float]:
        """Transfers, then probes; raises `StaleWeights`. Returns numbers to log (gap, bytes)."""
        raise NotImplementedError
