from __future__ import annotations

import pytest

from trainer.ops.schedule import learning_rate


def rates(**options) -> list[float]:
    options = {"lr": 1.0, "total_steps": 10, **options}
    return [learning_rate(step, **options) for step in range(10)]


def test_warm_up_then_constant() -> None:
    assert rates(warmup_steps=4)[:6] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_linear() -> None:
    assert rates(schedule="linear") == pytest.approx([1 - k / 10 for k in range(10)])
    assert rates(schedule="linear", warmup_steps=2, min_ratio=0.2)[2:] == pytest.approx(
        [0.2 + 0.8 * (1 - k / 8) for k in range(8)]
    )


def test_cosine() -> None:
    found = rates(schedule="cosine", warmup_steps=2, min_ratio=0.1, lr=2e-4)
    assert found[0] == pytest.approx(1e-4)
    assert found[2] == pytest.approx(2e-4)
    assert found[6] == pytest.approx(2e-4 * (0.1 + 0.9 * 0.5))
    assert found[9] == pytest.approx(2e-4 * (0.1 + 0.9 * 0.0380602337), rel=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_past_the_end_it_stays_low(schedule: str) -> None:
    rate = learning_rate(99, lr=1.0, total_steps=10, schedule=schedule, min_ratio=0.3)
    assert rate == pytest.approx(0.3)


def test_a_run_of_only_warm_up() -> None:
    assert learning_rate(3, lr=1.0, total_steps=4, warmup_steps=4, schedule="linear") == 1.0
