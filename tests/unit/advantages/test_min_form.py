"""Numbers of the worked example of PURE (arXiv:2504.15275)."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from trainer.advantages.base import Advantage
from trainer.advantages.min_form import MinForm

SCORES = [[0.8, -0.6, 0.5], [0.9, 0.7]]
STEPS = [[-2.685741, -2.323822, -1.361912], [2.123828, 1.816551]]


@pytest.fixture
def worked(make_steps):
    """Steps of ten tokens; the second answer is right."""
    return make_steps(SCORES, [0.0, 1.0], length=10)


def test_by_hand(worked) -> None:
    found = MinForm(mask_step_ends=False)(worked)
    for row, steps in zip(found.tolist(), STEPS, strict=True):
        each = [value for value in steps for _ in range(10)]
        assert row[1 : 1 + len(each)] == pytest.approx(each, abs=2e-6)
        assert not any(row[:1] + row[1 + len(each) :])


def test_separators_get_nothing_but_the_end_of_the_answer_does(worked) -> None:
    whole, masked = MinForm(mask_step_ends=False)(worked), MinForm()(worked)
    assert masked[0, [10, 20]].tolist() == [0, 0]
    assert masked[0, 30] == whole[0, 30]
    assert (masked != whole).sum() == 3


def test_step_scores_alone(worked) -> None:
    """Mode PRM: no verifiable term, so the plain transform minus its baseline is left."""
    found = MinForm(outcome_coef=0, baseline="none", mask_step_ends=False)(worked)
    transformed = torch.tensor([6.65211e-07, -0.599989, 8.3507e-06])
    assert_close(found[0, [1, 11, 21]], transformed.flip(0).cumsum(0).flip(0), atol=1e-6, rtol=0)
    assert found[1, 1].item() == pytest.approx(0.723841, abs=1e-6)


def test_a_step_baseline_is_the_mean_of_the_siblings_steps(worked) -> None:
    form = MinForm(baseline="step", outcome_coef=0, mask_step_ends=False)
    plain = MinForm(baseline="none", outcome_coef=0, mask_step_ends=False)
    lost = (plain(worked) - form(worked))[:, [1, 11, 21]]
    first, second = 0.723841 / 2, -0.59998 / 3
    assert lost[0].tolist() == pytest.approx([3 * first, 2 * first, first], abs=1e-5)
    assert lost[1, :2].tolist() == pytest.approx([2 * second, second], abs=1e-5)


def test_towards_0_the_sum_is_the_minimum(make_steps) -> None:
    form = MinForm(temperature=1e-3, baseline="none", outcome_coef=0)
    found = form(make_steps([[0.8, -0.6, 0.5], [0.4]]))
    assert found[:, 1].tolist() == pytest.approx([-0.6, 0.4])
    uniform = MinForm(weighting="uniform", baseline="none", outcome_coef=0)
    assert uniform(make_steps([[0.8, -0.6, 0.5], [0.4]]))[:, 1].tolist() == pytest.approx(
        [0.7 / 3, 0.4]
    )


def test_prompts_without_an_answer_have_no_outcome_term(make_steps) -> None:
    parts = {"solved": torch.tensor([float("nan"), float("nan"), 1.0, 0.0])}
    batch = make_steps(
        [[0.5], [0.5], [0.5], [0.5]], [9.0, 3.0, 9.0, 3.0], group=[0, 0, 1, 1], parts=parts
    )
    form = MinForm(outcome_part="solved", baseline="none")
    assert form(batch)[:, 1].tolist() == pytest.approx([0.5, 0.5, 1.5, -0.5])
    with pytest.raises(ValueError, match=r"no part 'right' in the scores; they have: solved"):
        MinForm(outcome_part="right")(batch)


def test_a_row_without_siblings_or_actions_gets_nothing(make_steps, make_batch) -> None:
    assert not MinForm()(make_steps([[0.5, 0.1]], [1.0])).any()
    assert not MinForm()(make_batch([[0, 0]])).any()


def test_a_row_without_steps_keeps_its_outcome(make_steps) -> None:
    batch = make_steps([[0.5], [0.5]], [0.0, 1.0])
    batch.extra["step_end"][0] = False
    batch.extra["process"][0] = 0.0
    batch = batch.with_(rewards=batch.extra["process"] + batch.mask * 0.0)
    found = MinForm()(batch.with_(outcome=torch.zeros(2)))
    assert not found[0].any()
    assert found[1, 2].item() == pytest.approx(0.5)


def test_penalties_add_up_to_the_end(worked) -> None:
    penalised = worked.with_(rewards=worked.rewards - 0.01 * worked.mask)
    lost = (MinForm(mask_step_ends=False)(worked) - MinForm(mask_step_ends=False)(penalised))[1]
    assert lost[[1, 20]].tolist() == pytest.approx([0.2, 0.01], abs=1e-5)


def test_it_is_found_by_name() -> None:
    assert Advantage.model_validate({"type": "min_form", "temperature": 0.2}) == MinForm(
        temperature=0.2
    )
    assert not MinForm.crosses_groups


def test_the_sum_form_pays_for_every_step(worked, make_steps) -> None:
    found = MinForm(weighting="sum", outcome_coef=0, baseline="none", mask_step_ends=False)(worked)
    assert found[0, [1, 11, 21]].tolist() == pytest.approx([0.7, -0.1, 0.5])
    assert found[1, [1, 11]].tolist() == pytest.approx([1.6, 0.7])
    padded = make_steps([[0.8, -0.6, *[0.9] * 8], [0.9, 0.7]], [0.0, 1.0], length=10)
    forms = {
        form: MinForm(weighting=form, outcome_coef=0, baseline="none", mask_step_ends=False)(padded)
        for form in ("sum", "softmin")
    }
    assert forms["sum"][0, 1].item() == pytest.approx(7.4), "eight idle steps more than pay"
    assert forms["softmin"][0, 1].item() == pytest.approx(-0.6, abs=1e-3), "the worst step stays"
