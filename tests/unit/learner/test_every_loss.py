"""How a minibatch is cut, packed and ordered changes no gradient: every loss, with every way to
make one number of it, and every modifier."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from trainer.losses.base import Aggregation, Loss
from trainer.modifiers.base import Modifier
from trainer.ops.batches import take
from trainer.plugin import find, names
from trainer.types import Batch

FIELDS: dict[str, list[dict[str, Any]]] = {
    "gspo": [{"clip_low": 0.2, "clip_high": 0.2, "level": "token"}],
    "clip_cov": [{"cov_low": 0.01, "cov_high": 9.0, "share": 0.2}],
    "kl_cov": [{"share": 0.2}],
}
"""Settings in which something is selected in these small batches."""
LOSS = find(Loss, "sapo")()
ORDER = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
MODIFIERS: dict[str, list[dict[str, Any]]] = {
    "kl": [{"coef": 0.3}, {"coef": 0.3, "target": 0.01}],
    "entropy": [{"coef": 0.2}],
    "adaptive_entropy": [{"coef": 0.2, "target": 9.0}],
    "tis": [{"high": 1.0}, {"mode": "sequence_truncate", "batch_normalize": True}],
    "rejection": [{"level": "token", "high": 1.5}],
    "token_entropy_mask": [{"low": 0.6}, {"low": 0.2, "high": 0.7, "renormalize": True}],
}


def losses() -> list[Any]:
    found = []
    for name in names(Loss):
        if find(Loss, name).trains_values or find(Loss, name).trains_judge:
            continue  # of critics and reward models; see test_critic
        for aggregation in get_args(Aggregation):
            for fields in FIELDS.get(name, [{}]):
                try:
                    loss = find(Loss, name)(aggregation=aggregation, local_rows=2, **fields)
                except ValidationError:
                    continue  # a loss that is defined for some modes only
                found.append(pytest.param(loss, id=f"{name}-{aggregation}"))
    return found


def modifiers() -> list[Any]:
    return [
        pytest.param(find(Modifier, name)(**fields), id=f"{name}-{number}")
        for name in names(Modifier)
        if not find(Modifier, name).trains_values
        for number, fields in enumerate(MODIFIERS.get(name, [{}]))
    ]


class Reference:
    def logprobs(self, batch: Batch, temperature: float, token_budget: int) -> torch.Tensor:
        return 1.2 * batch.sampled_logprobs


def found(make_learner, gradients, batch: Batch, budget: int, **fields: Any):
    """Gradient of the first update, and the report of one more step. The engine's log-probs are
    the old ones, so that ratios are far from 1."""
    made = fields.get("modifiers", ())
    corrects = any("sampled_logprobs" in one.needs for one in (fields["loss"], *made))
    learner = make_learner(
        Reference(),
        learner={
            "token_budget": budget,
            "old_logprobs": "recompute" if corrects else "sampled",
        },
        **fields,
    )
    first = gradients(learner, batch)
    return first, learner.update(learner.advantage(learner.annotate(batch)), 2)


def same(one, other) -> None:
    assert one[0]["head.weight"].abs().max() > 0
    for name, gradient in one[0].items():
        assert_close(other[0][name], gradient, rtol=1e-6, atol=1e-9, msg=name)
    assert one[1].keys() == other[1].keys()
    for name, value in one[1].items():
        assert other[1][name] == pytest.approx(value, rel=1e-6, abs=1e-12), name


@pytest.mark.parametrize("loss", losses())
def test_micro_batches_and_order_do_not_matter(make_learner, batch, gradients, loss) -> None:
    whole = found(make_learner, gradients, batch, 10**6, loss=loss)
    if loss.aggregation != "token_mean_local":  # its chunks are of neighbours, by definition
        batch = take(batch, ORDER)
    same(whole, found(make_learner, gradients, batch, 7, loss=loss))


@pytest.mark.parametrize("modifier", modifiers())
def test_nor_do_they_with_any_modifier(make_learner, batch, gradients, modifier) -> None:
    def run(batch: Batch, budget: int):
        made = (Modifier.model_validate(modifier.model_dump()),)  # some have a state
        return found(make_learner, gradients, batch, budget, loss=LOSS, modifiers=made)

    same(run(batch, 10**6), run(take(batch, ORDER), 7))


def test_selections_do_select(make_learner, batch) -> None:
    """The invariance above would also hold for a selection of nothing."""
    shown = {"clip_cov": "train/cov_dropped", "kl_cov": "train/cov_penalised"}
    for name, metric in shown.items():
        learner = make_learner(loss={"type": name, **FIELDS[name][0]})
        report = learner.update(learner.advantage(learner.annotate(batch)), 1)
        assert 0 < report[metric] < 0.5, name
    learner = make_learner(modifiers=({"type": "token_entropy_mask", "low": 0.6},))
    report = learner.update(learner.advantage(learner.annotate(batch)), 1)
    assert 0.3 < report["train/entropy_kept"] < 0.5


def test_other_steps_draw_other_actions(make_learner, batch, gradients) -> None:
    drawn = set()
    for seed in range(6):
        loss = {"type": "clip_cov", "cov_low": 0.0, "cov_high": 9.0}
        learner = make_learner(loss=loss, seed=seed)
        drawn.add(gradients(learner, batch)["head.weight"].sum().item())
    assert len(drawn) > 1


def test_the_state_of_modifiers_is_in_the_checkpoint(make_learner, batch) -> None:
    """Continued after two of four steps: the same bits, coefficient included."""
    made = {
        "modifiers": (
            {"type": "adaptive_entropy", "target": 9.0, "coef": 0.1, "delta": 0.05},
            {"type": "kl", "coef": 0.3, "target": 0.01, "horizon": 30},
        )
    }

    def steps(learner, first: int, last: int) -> list[dict[str, float]]:
        return [
            learner.update(learner.advantage(learner.annotate(batch)), step)
            for step in range(first, last + 1)
        ]

    whole = make_learner(Reference(), **made)
    expected = steps(whole, 1, 4)
    first, second = make_learner(Reference(), **made), make_learner(Reference(), **made)
    steps(first, 1, 2)
    second.module.load_state_dict(first.module.state_dict())
    second.load_state_dict(first.state_dict())
    assert steps(second, 3, 4) == expected[2:]
    coefs = [report["train/entropy_coef"] for report in expected]
    assert coefs == pytest.approx([0.1, 0.15, 0.2, 0.25])
    assert len({report["train/kl_coef"] for report in expected}) == 4


def test_a_positive_term_has_its_own_denominator(make_learner, batch, gradients) -> None:
    """Of losses that divide by different numbers only the first term changes."""
    nothing = batch.with_(rewards=torch.zeros_like(batch.rewards))
    correct = torch.tensor([1.0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1])
    nothing = nothing.with_(parts={"correct": correct})
    term = ({"type": "positive_nll", "coef": 1.0, "part": "correct"},)
    grads = [
        gradients(
            make_learner(loss={"type": "ppo_clip", "aggregation": mode}, modifiers=term), nothing
        )
        for mode in get_args(Aggregation)
    ]
    learner = make_learner()
    seen = learner.policy.evaluate(batch).logprobs
    chosen = batch.mask & correct.bool()[:, None]
    nll = -(seen * chosen).sum() / chosen.sum()
    (expected,) = torch.autograd.grad(nll, [learner.module.head.weight])
    for gradient in grads:
        assert_close(gradient["head.weight"], expected, rtol=1e-5, atol=1e-8)
