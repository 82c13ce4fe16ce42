"""One process; two are in tests/integration/test_two_processes.py."""

from __future__ import annotations

import torch

from trainer.distributed import Distributed


def test_one_process_has_no_process_group() -> None:
    distributed = Distributed.start(cpu=True)
    assert (distributed.rank, distributed.world) == (0, 1)
    assert distributed.is_main
    assert not distributed.sharded
    assert not torch.distributed.is_initialized()
    values = torch.ones(2)
    total = distributed.all_reduce_sum(values)
    assert total.tolist() == [1.0, 1.0]
    assert total is not values
    assert distributed.gather_objects({"a": 1}) == [{"a": 1}]
    assert distributed.broadcast_object("x") == "x"
    distributed.barrier("nothing")
    distributed.close()


def test_prepare_leaves_a_single_module_as_it_is() -> None:
    distributed = Distributed.start(cpu=True)
    module = torch.nn.Linear(2, 1)
    prepared, optimizer = distributed.prepare(module, torch.optim.SGD(module.parameters(), 1.0))
    assert prepared is module
    assert distributed.unwrap(prepared) is module
    with distributed.no_sync(prepared):
        distributed.backward(prepared(torch.tensor([[3.0, 4.0]])).sum())
    assert module.weight.grad.tolist() == [[3.0, 4.0]]
    norm = distributed.clip_grad_norm(module.parameters(), None)
    assert norm == torch.tensor([3.0, 4.0, 1.0]).norm().item()
    assert module.weight.grad.tolist() == [[3.0, 4.0]]
    distributed.clip_grad_norm(module.parameters(), 1.0)
    assert module.weight.grad.norm() < 1
    optimizer.step()
    assert module.weight.dtype == torch.float32
