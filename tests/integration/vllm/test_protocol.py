"""What is said to vLLM's native backends is what vLLM understands; no GPU moves any bytes here."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import pytest
import torch

from trainer.ops.transfer_client import TransferClient

pytest.importorskip("vllm")


class Servers:
    """Keeps what is posted."""

    def __init__(self) -> None:
        self.posted: list[tuple[int, str, Any]] = []

    async def post(self, index: int, path: str, body: Any) -> None:
        self.posted.append((index, path, body))

    def client(self, native: str, worlds: list[int]) -> TransferClient:
        return TransferClient(native, worlds, 7, self.post, peers=tuple(worlds))


async def test_nccl_ranks_and_metadata():
    from vllm.distributed.weight_transfer.nccl_common import (
        NCCLWeightTransferInitInfo,
        worker_init_payload,
    )
    from vllm.distributed.weight_transfer.nccl_engine import (
        NCCLWeightTransferEngine,
        NCCLWeightTransferUpdateInfo,
    )

    from trainer.vllm_adapter.sender import _Source
    from trainer.vllm_adapter.worker import InitInfo

    servers = Servers()
    client = servers.client("nccl", [2, 4])
    sent = worker_init_payload(
        NCCLWeightTransferInitInfo(
            master_address="10.0.0.1", master_port=5, rank_offset=1, world_size=7, packed=True
        )
    )
    await asyncio.to_thread(client.init_weight_transfer_engine, sent)
    offsets = []
    for index, (server, path, body) in enumerate(servers.posted):
        assert (server, path) == (index, "/init_weight_transfer_engine")
        ours = InitInfo(**body["init_info"])
        theirs = NCCLWeightTransferEngine.init_info_cls(**ours.info)
        assert (ours.native, theirs.world_size, theirs.packed) == ("nccl", 7, True)
        offsets.append(theirs.rank_offset)
    assert offsets == [1, 3]  # rank 0 sends, 1 and 2 are the first server's, 3 to 6 the second's

    source = _Source(lambda: iter([("a", torch.ones(2, 3)), ("b", torch.ones(4))]), "bfloat16")
    assert [(name, t.dtype) for name, t in source] == [
        ("a", torch.bfloat16),
        ("b", torch.bfloat16),
    ]
    metadata = source.metadata()
    update = NCCLWeightTransferUpdateInfo(
        names=[m.name for m in metadata],
        dtype_names=[str(m.dtype).removeprefix("torch.") for m in metadata],
        shapes=[list(m.shape) for m in metadata],
    )
    servers.posted.clear()
    for call in (
        client.start_weight_update,
        lambda: client.update_weights(asdict(update)),
        client.finish_weight_update,
    ):
        await asyncio.to_thread(call)
    assert [path for _, path, _ in servers.posted[::2]] == [
        "/start_weight_update",
        "/update_weights",
        "/finish_weight_update",
    ]
    assert NCCLWeightTransferUpdateInfo(**servers.posted[2][2]["update_info"]) == update
    assert servers.posted[-1] == (1, "/finish_weight_update", {"weight_version": "7"})


@pytest.mark.parametrize("version", ["0.30.0", "0.33.1", "0.32.0+cpu"])
async def test_versions_it_was_written_for(monkeypatch, version):
    import vllm

    from trainer.vllm_adapter import check_version

    monkeypatch.setattr(vllm, "__version__", version)
    check_version()


@pytest.mark.parametrize("version", ["0.29.9", "0.34.0", "1.30.0"])
async def test_a_server_of_another_version_ends_with_a_word(monkeypatch, version):
    import vllm

    from trainer.errors import MissingService
    from trainer.ops.vllm_launch import SERVER_MARK
    from trainer.vllm_adapter.worker import register

    monkeypatch.setattr(vllm, "__version__", version)
    monkeypatch.setenv(SERVER_MARK, "1")
    with pytest.raises(MissingService, match=f"vLLM {version} is installed.*0.30 to 0.33"):
        register()


async def test_cuda_ipc_handles_survive_json():
    import base64
    import json
    import pickle

    from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferUpdateInfo

    servers = Servers()
    handles = [{"GPU-1": (torch.float32, 0, b"handle")}]
    update = asdict(
        IPCWeightTransferUpdateInfo(
            names=["a"], dtype_names=["float32"], shapes=[[2]], ipc_handles=handles
        )
    )
    client = servers.client("ipc", [1])
    await asyncio.to_thread(client.update_weights, update)
    ((_, _, body),) = servers.posted
    received = json.loads(json.dumps(body))["update_info"]
    assert "ipc_handles" not in received
    assert pickle.loads(base64.b64decode(received["ipc_handles_pickled"])) == handles


async def test_a_fault_of_a_server_reaches_the_sender():
    async def refuse(index: int, path: str, body: Any) -> None:
        raise ConnectionError(path)

    client = TransferClient("nccl", [1], 1, refuse, peers=())
    with pytest.raises(ConnectionError, match="/start_weight_update"):
        await asyncio.to_thread(client.start_weight_update)
