from __future__ import annotations

import torch

from trainer.ops.tally import Tally


def test_two_processes_report_one_mean() -> None:
    one, two = Tally(), Tally()
    one.mean("kl", torch.tensor([1.0, 2.0, 99.0]), torch.tensor([1.0, 1.0, 0.0]))
    one.sum("tokens", torch.tensor(2))
    one.maximum("gap", torch.tensor([0.3, 5.0]), torch.tensor([True, False]))
    two.mean("kl", 6.0, 1.0)
    two.mean("only", 4.0, 2)
    two.sum("tokens", 1)
    two.maximum("gap", torch.tensor([0.1]), torch.tensor([True]))
    report = Tally.merged([one.export(), two.export()]).report()
    assert report == {
        "kl": 3.0,
        "only": 4.0,
        "tokens": 3.0,
        "gap": torch.tensor(0.3).item(),
    }


def test_a_mean_over_nothing_is_left_out() -> None:
    tally = Tally()
    tally.mean("ratio", torch.ones(2), torch.zeros(2))
    assert tally.export().report() == {}
