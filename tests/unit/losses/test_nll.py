from __future__ import annotations

import torch

from trainer.losses.base import Loss
from trainer.losses.nll import Nll
from trainer.types import Evaluation


def test_weighted_negative_log_likelihood(make_batch) -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -4.0]], requires_grad=True)
    batch = make_batch([[1, 1, 1]], advantages=torch.tensor([[1.0, 0.5, 0.0]]))
    per_action, metrics = Nll()(Evaluation(logprobs), batch)
    assert per_action.tolist() == [[1.0, 1.0, 0.0]]
    assert metrics["nll"].tolist() == [[1.0, 2.0, 4.0]]
    (gradient,) = torch.autograd.grad(per_action.sum(), logprobs)
    assert gradient.tolist() == [[-1.0, -0.5, 0.0]]
    assert Loss.model_validate("nll") == Nll()
