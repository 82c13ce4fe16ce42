"""The four losses against the worked numbers of arXiv:2412.01981 and 2502.01456, their gradients
against finite differences of the formulas, and their indifference to micro-batches."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import logsigmoid

from trainer.losses.base import Loss
from trainer.losses.implicit.ce import Ce
from trainer.losses.implicit.dpo import Dpo
from trainer.losses.implicit.kto import Kto
from trainer.losses.implicit.nca import Nca
from trainer.ops.across import Across
from trainer.ops.aggregation import coefficients
from trainer.ops.batches import take
from trainer.types import Evaluation

LABELS = [1.0, 0.0, 1.0, 0.0]
ALL = [Ce(), Dpo(), Dpo(pairs="mean"), Nca(), Kto(), Kto(right_weight=2.0, wrong_weight=0.5)]
IDS = ["ce", "dpo", "dpo_mean", "nca", "kto", "kto_weighted"]


def total(loss: Loss, logprobs, batch, parts=None) -> torch.Tensor:
    """As the updater does it, in micro-batches of the rows `parts`."""
    now = {"current_logprobs": logprobs.detach()}
    mini = batch.with_(extra=batch.extra | now, old_logprobs=logprobs.detach())
    mini = loss.on_minibatch(mini, Across.alone())
    scale = coefficients(mini.mask, mini.weight, loss.aggregation, length_norm=1).double()
    number = logprobs.new_zeros(())
    for rows in parts or [list(range(len(batch.mask)))]:
        per_action, _ = loss(Evaluation(logprobs[rows] * mini.mask[rows]), take(mini, rows))
        number = number + (per_action * scale[rows]).sum()
    return number


@pytest.fixture
def four(make_batch):
    """D = 12, -8, 4, -20 against a reference of 0, spread over rows of unequal length."""
    mask = [[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1], [1, 0, 1, 0]]
    batch = make_batch(mask, LABELS, ref_logprobs=torch.zeros(4, 4))
    share = torch.tensor([12.0, -8, 4, -20]).double() / batch.mask.sum(-1)
    return share[:, None] * batch.mask, batch


@pytest.mark.parametrize(
    ("loss", "expected"),
    [(Ce(), 0.465476), (Dpo(), 0.288272), (Nca(), 1.183289), (Kto(), 0.328088)],
    ids=lambda value: getattr(value, "name", lambda: value)(),
)
def test_the_worked_example(four, loss, expected):
    assert total(loss, *four).item() == pytest.approx(expected, abs=1e-6)


def test_the_terms_of_cross_entropy(make_batch):
    scores = torch.tensor([0.035, -0.02, -0.015, 0.015]).double() / 0.05
    batch = make_batch([[1]] * 4, [1, 0, 0, 1], ref_logprobs=torch.zeros(4, 1))
    terms, _ = Ce()(Evaluation(scores[:, None]), batch)
    expected = [0.675800, 0.683197, 0.685675, 0.685675]
    assert terms[:, 0].tolist() == pytest.approx(expected, abs=1e-6)
    assert total(Ce(), scores[:, None], batch).item() == pytest.approx(0.682587, abs=1e-6)


def test_a_fractional_outcome_is_a_soft_label(make_batch):
    batch = make_batch([[1]], [0.25], ref_logprobs=torch.zeros(1, 1))
    score = torch.tensor([[2.0]]).double()
    expected = -(0.25 * logsigmoid(0.05 * score) + 0.75 * logsigmoid(-0.05 * score)).item()
    assert total(Ce(), score, batch).item() == pytest.approx(expected)


def test_dpo_against_the_mean_of_the_other_side(make_batch):
    """verl's form: Q = 2, 1, -1 with o = 1, 0, 0, and a group without another side."""
    batch = make_batch([[1]] * 4, [1, 0, 0, 1], [0, 0, 0, 1], ref_logprobs=torch.zeros(4, 1))
    scores = torch.tensor([2.0, 1, -1, 3]).double()
    terms = -logsigmoid(torch.tensor([2.0, 1, 3, 3]).double())
    loss = Dpo(beta=1.0, pairs="mean")
    assert total(loss, scores[:, None], batch).item() == pytest.approx(terms.mean().item())


def exact(loss: Loss, scores: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The formula of the whole loss as a function of D [4]; `levels` [4] of D that are held."""
    b, (w, v) = 0.05, (scores[[0, 2]], scores[[1, 3]])
    if isinstance(loss, Ce):
        return -torch.cat([logsigmoid(b * w), logsigmoid(-b * v)]).mean()
    if isinstance(loss, Dpo) and loss.pairs == "matched":
        return -logsigmoid(b * (w - v)).mean()
    if isinstance(loss, Dpo):
        held_w, held_l = levels[[0, 2]].mean(), levels[[1, 3]].mean()
        return -torch.cat([logsigmoid(b * (w - held_l)), logsigmoid(b * (held_w - v))]).mean()
    if isinstance(loss, Nca):
        return -(logsigmoid(b * w) + 0.5 * logsigmoid(-b * w) + 0.5 * logsigmoid(-b * v)).mean()
    assert isinstance(loss, Kto)
    high, low = levels[[0, 2]].mean().clamp(min=0), levels[[1, 3]].mean().clamp(min=0)
    right = loss.right_weight * (1 - torch.sigmoid(b * (w - low)))
    wrong = loss.wrong_weight * (1 - torch.sigmoid(b * (high - v)))
    return torch.cat([right, wrong]).mean()


@pytest.mark.parametrize("loss", ALL, ids=IDS)
def test_value_and_gradient_are_those_of_the_formula(four, loss):
    """By central differences in float64, for every token; what is held has no gradient."""
    logprobs, batch = four
    logprobs = logprobs.clone().requires_grad_()
    found = total(loss, logprobs, batch)
    found.backward()
    held = logprobs.detach().sum(-1)
    assert found.item() == pytest.approx(exact(loss, held, held).item(), abs=1e-7)
    step = 1e-4
    for row, column in batch.mask.nonzero().tolist():
        moved = []
        for sign in (1, -1):
            scores = held.clone()
            scores[row] += sign * step
            moved.append(exact(loss, scores, held))
        expected = ((moved[0] - moved[1]) / (2 * step)).item()
        assert logprobs.grad[row, column].item() == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert not logprobs.grad[~batch.mask].any()


@pytest.mark.parametrize("loss", ALL, ids=IDS)
def test_micro_batches_change_nothing(loss, make_batch):
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(7, 5, generator=generator) < 0.7).int()
    mask[:, 0] = 1
    mask[3] = 0
    returns, group = [1, 0, 1, 1, 0, 0.25, 1], [0, 0, 0, 1, 1, 1, 1]
    batch = make_batch(mask.tolist(), returns, group, ref_logprobs=-torch.ones(7, 5))
    results = []
    for parts in (None, [[i] for i in range(7)], [[6, 0], [5, 1, 2], [3, 4]]):
        logprobs = torch.randn(7, 5, generator=generator.manual_seed(1)).double().requires_grad_()
        found = total(loss, logprobs, batch, parts)
        found.backward()
        results.append((found.item(), logprobs.grad))
    for number, gradient in results[1:]:
        assert number == pytest.approx(results[0][0])
        torch.testing.assert_close(gradient, results[0][1])


@pytest.mark.parametrize("loss", ALL, ids=IDS)
def test_one_label_everywhere_gives_a_finite_loss(loss, make_batch):
    batch = make_batch([[1, 1], [1, 0], [0, 0]], [1, 1, 1], ref_logprobs=torch.zeros(3, 2))
    logprobs = torch.ones(3, 2).double().requires_grad_()
    found = total(loss, logprobs, batch)
    found.backward()
    assert torch.isfinite(found)
    assert torch.isfinite(logprobs.grad).all()
    without_pair = isinstance(loss, Nca) or (isinstance(loss, Dpo) and loss.pairs == "matched")
    assert bool(logprobs.grad.any()) != without_pair


def test_it_is_a_mean_over_answers_and_nothing_else():
    with pytest.raises(ValueError, match=r"token_mean divides by tokens.*seq_mean_token_sum"):
        Ce(aggregation="token_mean")


def test_needs_follow_the_form():
    assert Dpo().needs == {"ref_logprobs", "current_logprobs"}
    assert Dpo(pairs="mean").needs == {"ref_logprobs", "old_logprobs"}
    assert (Dpo().leaves_rows_out, Dpo(pairs="mean").leaves_rows_out) == (True, False)
