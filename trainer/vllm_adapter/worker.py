"""What lives in vLLM's own processes: the transfer backend `cohort`, ids that are never sampled,
and what a weight really computes. vLLM imports it by name."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from trainer.ops.guard import end_with_parent
from trainer.ops.sketches import read_back
from trainer.ops.vllm_arguments import BACKEND
from trainer.ops.vllm_launch import SERVER_MARK
from trainer.vllm_adapter import check_version
from trainer.vllm_adapter.no_torchvision import pretend

if TYPE_CHECKING:
    from torch import nn


def register() -> None:
    """Entry point `vllm.general_plugins`: vLLM calls it in each of its processes."""
    if SERVER_MARK in os.environ:
        check_version()
        end_with_parent()
        pretend()
    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, Transfer)


@dataclass
class InitInfo(WeightTransferInitInfo):
    """`native` names one of vLLM's own backends (nccl, ipc) that then moves the bytes."""

    native: str = ""
    info: dict[str, Any] = field(default_factory=dict)


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """One bucket: a safetensors file, or in process the tensors themselves."""

    path: str = ""
    tensors: Any = ()


class Transfer(WeightTransferEngine[InitInfo, UpdateInfo]):
    """vLLM's layer-wise reload, fed from files, from this process, or by a native backend; and
    what vLLM leaves out: weights that did not come, and packed copies of tied ones."""

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo
    missing: Sequence[str] = ()
    """Layers that got nothing, or not all, in the last update."""
    _native: Any = None

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        self.shutdown()
        if init_info.native:
            cls = WeightTransferEngineFactory._registry[init_info.native]()
            self._native = cls(self.config, self.vllm_config, self.device, self.model)
            self._native.init_transfer_engine(self._native.parse_init_info(init_info.info))

    def start_weight_update(self) -> None:
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """As the base, which then waits for an accelerator that a CPU does not have."""
        if self._native is not None:
            self._native.update_weights(update_info)
        else:
            self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: UpdateInfo) -> None:
        if update_info.path:
            from safetensors import safe_open

            with safe_open(update_info.path, framework="pt", device=str(self.device)) as file:
                self.model.load_weights((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
        else:  # copied: vLLM keeps what it is given until its layer is whole
            self.model.load_weights((n, t.detach().clone()) for n, t in update_info.tensors)

    def finish_weight_update(self) -> None:
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        self.missing = _incomplete(self.model)
        finalize_layerwise_reload(self.model, self.model_config)
        _refresh_packed(self.model)

    def shutdown(self) -> None:
        if self._native is not None:
            self._native.shutdown()
            self._native = None


def _incomplete(model: nn.Module) -> list[str]:
    """Layers that still wait for weights; not tied heads, which get theirs from the embedding."""
    from vllm.model_executor.layers.attention import is_deferred_attention_layer
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
    from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

    config = getattr(model, "config", None)
    tied = bool(getattr(config, "tie_word_embeddings", False))
    found = []
    for name, layer in model.named_modules():
        info = get_layerwise_info(layer)
        if not info.can_load() or is_deferred_attention_layer(layer):
            continue
        wanted = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
        padded = info.load_numel > 0 and hasattr(layer, "org_vocab_size")
        renewed = tied and isinstance(layer, ParallelLMHead)
        if info.load_numel < wanted and not padded and not renewed:
            found.append(name)
    return found


def _refresh_packed(model: nn.Module) -> None:
    """On a CPU a head that is tied to the embedding multiplies with a packed copy of it, which
    the reload of the embedding does not renew: replies would come from the old weights."""
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if hasattr(module, "cpu_linear") and weight is not None and weight.ndim == 2:
            from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

            if weight.numel():
                dispatch_cpu_unquantized_gemm(module, remove_weight=False)


class Worker:
    """Methods that vLLM's worker gets besides its own, for `collective_rpc`."""

    def cohort_ban(self, ids: list[int]) -> None:
        """Takes `ids` out of every softmax, sampled or scored."""
        model = self.get_model()  # type: ignore[attr-defined]
        compute = type(model).compute_logits

        def compute_logits(*args: Any, **more: Any) -> Any:
            logits = compute(model, *args, **more)
            if logits is not None and ids:
                logits[..., ids] = float("-inf")
            return logits

        model.compute_logits = compute_logits

    def cohort_claim(self, owner: str, lease: float) -> str:
        """Makes `owner` the one trainer this server follows, for `lease` seconds. "" if it is now,
        else who is."""
        other, heard = getattr(self, "_cohort_owner", ("", 0.0))
        silent = time.monotonic() - heard
        if other not in ("", owner) and silent < lease:
            return f"{other}, heard of {silent:.0f} s ago"
        self._cohort_owner = (owner, time.monotonic())
        return ""

    def cohort_release(self, owner: str) -> str:
        """The server is free, if it was `owner`'s."""
        if getattr(self, "_cohort_owner", ("", 0.0))[0] == owner:
            self._cohort_owner = ("", 0.0)
        return ""

    def cohort_missing(self) -> list[str]:
        """Layers that the last update left without weights. Not an error of the update itself:
        vLLM would take it for one that never ended."""
        return list(self.weight_transfer_engine.missing)  # type: ignore[attr-defined]

    def cohort_sketch(self, names: list[str]) -> dict[str, list[float]]:
        """`ops.sketches.sketch` of each weight, from what the model really multiplies with; those
        that cannot be read back (sharded, quantised) are left out."""
        model = self.get_model()  # type: ignore[attr-defined]
        head = ["lm_head.weight"] if hasattr(model, "lm_head") else []
        found = {}
        for name in dict.fromkeys([*names, *head]):
            value = read_back(model, name)
            if value is not None:
                found[name] = value.float().cpu().tolist()
        return found
