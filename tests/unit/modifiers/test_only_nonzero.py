from __future__ import annotations

import pytest
import torch

from trainer.modifiers.only_nonzero import OnlyNonzero
from trainer.ops.across import Across


def test_actions_without_advantage_leave_the_mask(make_batch) -> None:
    advantages = torch.tensor([[1.0, 0.0, -0.5], [0.0, 0.0, 3.0]])
    batch = make_batch([[1, 1, 1], [1, 1, 0]], advantages=advantages)
    ready = OnlyNonzero().on_minibatch(batch, Across.alone())
    assert ready.mask.tolist() == [[True, False, True], [False] * 3]
    assert not OnlyNonzero().changes_loss
    with pytest.raises(ValueError, match="advantages: this batch has none"):
        OnlyNonzero().on_minibatch(batch.with_(advantages=None), Across.alone())
