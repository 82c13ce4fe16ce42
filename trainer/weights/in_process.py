"""Policy and engine live in one process: tensors are handed over, then the probe checks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.weights.base import Publisher

if TYPE_CHECKING:
    from trainer.engines.base import Engine
    from trainer.policies.base import Policy
    from trainer.weights.base import Row


class InProcess(Publisher):
    async def publish(
        self, policy: Policy, engine: Engine, version: int, probe: list[Row]
    ) -> dict[str, float]:
        await engine.load(policy.weights(), version)
        return {"sync/probe_gap": await self.prove(policy, engine, version, probe)}
