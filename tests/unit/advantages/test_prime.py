"""The worked example of the PRIME card (arXiv:2502.01456), to the digit, then its edges."""

from __future__ import annotations

import pytest
import torch

from trainer.advantages.gae import Gae
from trainer.advantages.prime import Prime
from trainer.advantages.rloo import Rloo
from trainer.ops.returns import whiten

MASK = [[0, 1, 1, 1, 0], [0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 1, 0, 0, 0]]
OUTCOMES = [1.0, 0.0, 0.0, 1.0]
Q = torch.tensor([[0.2, 0.1, 0.4], [0, -0.4, 9], [-0.2, -0.5, 0.4], [0.3, 9, 9]])
RETURNS = [
    *[1.666665, 1.396824, 1.317459],
    *[-1.650792, -1.539681],
    *[-1.571427, -1.079364, -0.015874],
    *[1.126983],
]
ADVANTAGES = [
    *[1.189282, 1.001113, 0.945769],
    *[-1.124099, -1.046617],
    *[-1.068755, -0.725622, 0.015988],
    *[0.812943],
]


@pytest.fixture
def batch(make_batch):
    """r = q / (M + 1e-6), with something in the padding that must not be read."""
    process = torch.nn.functional.pad(Q, (1, 1), value=5.0) / (0.7 + 1e-6)
    return make_batch(MASK, OUTCOMES, extra={"process_rewards": process})


def test_the_worked_example(batch):
    found = Prime(whiten=False)(batch)
    assert found[batch.mask].tolist() == pytest.approx(RETURNS, abs=2e-6)
    found = Prime()(batch)
    assert found[batch.mask].tolist() == pytest.approx(ADVANTAGES, abs=2e-6)
    assert not found[~batch.mask].any()
    assert found.dtype == torch.float32


def test_process_rewards_alone(batch):
    expected = [
        *[0.269841 + 0.079365 + 0.650793, 0.079365 + 0.650793, 0.650793],
        *[-0.111111 - 0.873015, -0.873015],
        *[-0.492063 - 1.063491 + 0.650793, -1.063491 + 0.650793, 0.650793],
        *[0.460317],
    ]
    found = Prime(whiten=False, outcome_weight=0.0)(batch)
    assert found[batch.mask].tolist() == pytest.approx(expected, abs=3e-6)


def test_the_papers_baseline_leaves_the_token_unscaled(batch):
    """c = 1/3, -2/7, -1/7, 3/7 (over 0.7): the mean of the others, by hand, at gamma 0."""
    found = Prime(whiten=False, outcome_weight=0.0, process_gamma=0.0, baseline="paper")(batch)
    c = torch.tensor([1 / 3, -2 / 7, -1 / 7, 3 / 7])
    others = (c.sum() - c) / 3
    expected = (torch.nn.functional.pad(Q, (1, 1)) / 0.7 - others[:, None]) * batch.mask
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_model_that_is_its_reference_leaves_rloo(batch):
    same = batch.with_(extra={"process_rewards": torch.zeros(4, 5)})
    torch.testing.assert_close(Prime(whiten=False)(same), Rloo()(batch))
    torch.testing.assert_close(Prime()(same), whiten(Rloo()(batch), batch.mask).float())


def test_reinforce_and_grpo_by_hand(batch):
    found = Prime(estimator="reinforce", whiten=False)(batch)
    assert found[0, 1:4].tolist() == pytest.approx([2, 1 + 5 / 7, 1 + 4 / 7], abs=1e-5)
    assert found[3, 1].item() == pytest.approx(1 + 3 / 7, abs=1e-5)
    found = Prime(estimator="grpo", whiten=False)(batch)
    c = torch.tensor([1 / 3, -2 / 7, -1 / 7, 3 / 7])
    scaled = (torch.tensor([2, 1, 4]) / 7 - c.mean()) / c.std()
    returns = scaled.flip(0).cumsum(0).flip(0) + 0.5 / torch.tensor(OUTCOMES).std()
    assert found[0, 1:4].tolist() == pytest.approx(returns.tolist(), abs=1e-4)


def test_grpo_without_any_difference_is_zero(make_batch):
    batch = make_batch(MASK, [1.0] * 4, extra={"process_rewards": torch.full((4, 5), 0.25)})
    assert not Prime(estimator="grpo")(batch).any()


def test_gae_is_gae_over_the_sum(batch):
    values = torch.arange(20.0).reshape(4, 5) / 10
    valued = batch.with_(values=values)
    mine = Prime(estimator="gae", process_weight=0.5, lam=0.9, process_gamma=0.8, whiten=False)
    process = batch.extra["process_rewards"] * batch.mask
    summed = valued.with_(rewards=batch.rewards + 0.5 * process)
    theirs = Gae(gamma=0.8, lam=0.9, whiten=False)
    torch.testing.assert_close(mine(valued), theirs(summed))
    torch.testing.assert_close(mine.returns(valued), theirs.returns(summed))
    assert mine.needs == {"values"}
    assert Prime().needs == frozenset()
    assert Prime().returns(batch) is None
    with pytest.raises(ValueError, match="critic"):
        mine(batch)


def test_discounts_count_actions_back_from_the_end(make_batch):
    batch = make_batch(
        [[1, 0, 1, 1], [1, 0, 0, 0]], [1.0, 0.0], extra={"process_rewards": torch.zeros(2, 4)}
    )
    found = Prime(outcome_gamma=0.5, whiten=False)(batch)
    assert found.tolist() == [[0.25, 0, 0.5, 1.0], [-1.0, 0, 0, 0]]


def test_groups_are_apart_and_one_that_shrank_is_left_out(make_batch):
    mask, outcomes = [[1, 1]] * 5, [1.0, 0, 1, 0, 1]
    process = torch.arange(10.0).reshape(5, 2) / 10
    whole = make_batch(mask, outcomes, [0, 0, 1, 1, 2], extra={"process_rewards": process})
    rest = make_batch(mask[:4], outcomes[:4], [0, 0, 1, 1], extra={"process_rewards": process[:4]})
    first = make_batch(mask[:2], outcomes[:2], [7, 7], extra={"process_rewards": process[:2]})
    found = Prime()(whole)
    assert not found[4].any()
    torch.testing.assert_close(found[:4], Prime()(rest))
    plain = Prime(whiten=False)
    torch.testing.assert_close(plain(rest)[:2], plain(first))


def test_one_answer_per_prompt_is_an_error(make_batch):
    lonely = make_batch([[1], [1]], [1.0, 0.0], [0, 1], extra={"process_rewards": torch.ones(2, 1)})
    with pytest.raises(ValueError, match=r"group_size.*reinforce"):
        Prime()(lonely)
    assert Prime(estimator="reinforce")(lonely).any()


def test_an_idle_process_gives_zeros(make_batch):
    idle = make_batch([[0, 0]], extra={"process_rewards": torch.zeros(1, 2)})
    for estimator in ("rloo", "reinforce", "grpo"):
        assert not Prime(estimator=estimator)(idle).any()


def test_without_process_rewards_it_says_where_they_come_from(make_batch):
    with pytest.raises(ValueError, match="model/implicit_prm"):
        Prime()(make_batch([[1], [1]], [1.0, 0.0]))


def test_only_whitening_crosses_groups():
    assert Prime().crosses_groups
    assert not Prime(whiten=False).crosses_groups
