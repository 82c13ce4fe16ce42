"""The proof after a sync: numbers that are no numbers must not pass for equal ones."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from trainer.engines.base import Engine
from trainer.errors import StaleWeights
from trainer.weights.base import Publisher, probe_rows
from trainer.weights.in_process import InProcess

NAN, INF = float("nan"), float("inf")


class Says(Engine):
    """Log-probs as given."""

    row: tuple[float, ...]

    async def logprobs(self, rows):
        return [list(self.row) for _ in rows]


async def gap(theirs: list[float], ours: list[float], **fields: float) -> float:
    policy = SimpleNamespace(
        precision="float32", probe=lambda rows: [ours for _ in rows], weights=lambda: iter(())
    )
    publisher: Publisher = InProcess(**fields)
    return await publisher.prove(policy, Says(row=theirs), 1, [([1, 2, 3], {})])


async def test_the_largest_gap_counts():
    assert await gap([-1.0, -2.0, -INF], [-1.0, -2.00005, -INF]) == pytest.approx(5e-5)
    assert await gap([-1.0], [-1.5], tolerance=0.6) == 0.5
    assert await gap([-INF], [-INF]) == 0.0


@pytest.mark.parametrize(
    "theirs", [[-1.0, -2.1, -3.0], [NAN, -2.0, -3.0], [-1.00001, -2.0, NAN], [-1.0, -INF, -3.0]]
)
async def test_other_weights_are_found(theirs):
    with pytest.raises(StaleWeights, match="version 1"):
        await gap(theirs, [-1.0, -2.0, -3.0])


def test_the_probe_uses_the_whole_vocabulary_but_the_banned():
    prompt = SimpleNamespace(tokens=[7, 8], inputs={"pixel_values": 1})
    (first, inputs), (second, none) = probe_rows(prompt, 100, banned=[0, 4], n=10)
    assert first == [7, 8, *second]
    assert (inputs, none) == ({"pixel_values": 1}, {})
    assert second == [1, 11, 20, 29, 38, 47, 56, 65, 74, 83]
