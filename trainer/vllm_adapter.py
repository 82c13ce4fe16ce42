"""Everything Cohort knows of vLLM's Python side; no other module imports it. vLLM 0.30 to 0.33.

`LocalEngine` is a vLLM inside the trainer's process. `register` and `Worker` live in vLLM's own
processes, here or in a server: the transfer backend `cohort`, ids that are never sampled, and what
a weight really computes. Importing this module imports vLLM (seconds): do it late.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from trainer.errors import EngineError, MissingService
from trainer.ops.sketches import read_back
from trainer.ops.vllm_arguments import BACKEND, versions
from trainer.ops.vllm_launch import as_guest

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

try:
    import vllm
    from vllm import LLM, SamplingParams
    from vllm.distributed.weight_transfer.base import (
        WeightTransferEngine,
        WeightTransferInitInfo,
        WeightTransferUpdateInfo,
    )
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
except ImportError as error:
    raise MissingService(
        f"the vllm engines need vLLM 0.30 to 0.33, and importing it failed ({error}): "
        "pip install 'cohort-rl[vllm]' on a machine with a GPU, scripts/setup.sh vllm on a CPU"
    ) from error

_SUPPORTED = ((0, 30), (0, 34))


def check_version() -> None:
    """Raises MissingService for a vLLM this module was not written for."""
    found = tuple(int(part) for part in vllm.__version__.split(".")[:2])
    if not _SUPPORTED[0] <= found < _SUPPORTED[1]:
        raise MissingService(
            f"vLLM {vllm.__version__} is installed, this version of Cohort works with 0.30 to "
            "0.33: pip install 'vllm>=0.30,<0.34'"
        )


@dataclass(frozen=True, slots=True)
class Finished:
    """A reply, as vLLM tells it."""

    key: str
    tokens: list[int]  # [n]
    logprobs: list[float]  # [n]
    version: list[int]  # [n]
    finish: str
    prompt_logprobs: list[float]
    """[m - 1] of a prompt of m tokens, if they were asked for."""


class LocalEngine:
    """vLLM inside this process. Not thread-safe: one call at a time."""

    def __init__(
        self, folder: Path, arguments: dict[str, Any], banned: Sequence[int], *, device: str
    ):
        """`folder` holds config and tokenizer; `arguments` are vLLM's own, by its own names."""
        check_version()
        self._owns_group = not torch.distributed.is_initialized()
        self._eager = device == "cpu" and arguments.get("enforce_eager", False)
        with self._quick(), as_guest():
            self._llm = LLM(model=str(folder), disable_log_stats=True, **arguments)
        self._engine = self._llm.llm_engine
        self._engine.collective_rpc("cohort_ban", args=(list(banned),))
        self._engine.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": {}})
        self.max_length: int = self._engine.model_config.max_model_len
        self._version = 0
        self._running: dict[str, tuple[list[int], int]] = {}  # prompt, version at its start

    @contextmanager
    def _quick(self) -> Iterator[None]:
        """On a CPU vLLM compiles small helpers for half a minute that save microseconds."""
        if not self._eager:
            yield
            return
        with torch.compiler.set_stance("force_eager"):
            yield

    @property
    def busy(self) -> bool:
        return self._engine.has_unfinished_requests()

    def add(
        self, key: str, tokens: list[int], sampling: dict[str, Any], inputs: dict[str, Any]
    ) -> None:
        """Queues a request. Raises EngineError if vLLM refuses it."""
        prompt = multimodal_prompt(self._engine.model_config, tokens, inputs) if inputs else None
        prompt = prompt or {"type": "token", "prompt_token_ids": tokens}
        try:
            self._engine.add_request(key, prompt, SamplingParams(output_kind=_final(), **sampling))
        except ValueError as error:
            raise EngineError(f"vLLM refuses the request: {error}") from error
        self._running[key] = (tokens, self._version)

    def step(self) -> list[Finished]:
        """Computes one token of every running request; returns those that ended."""
        with self._quick():
            outputs = self._engine.step()
        return [self._read(output) for output in outputs if output.finished]

    def abort(self, keys: Sequence[str]) -> None:
        self._engine.abort_request(list(keys))
        for key in keys:
            self._running.pop(key, None)

    def load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Takes the weights one by one. Requests that run go on with the new weights, and read
        their text so far again."""
        call = self._engine.collective_rpc
        call("start_weight_update")
        call("update_weights", kwargs={"update_info": {"tensors": weights}})
        call("finish_weight_update")
        if missing := call("cohort_missing")[0]:
            raise EngineError(f"weights were not sent, or only in part: {', '.join(missing)}")
        self._version = version
        if hasattr(self._engine, "set_weight_version"):
            self._engine.set_weight_version(str(version))
        self._engine.reset_prefix_cache(reset_running_requests=True)
        if self._engine.model_config.is_multimodal_model:
            self._engine.reset_encoder_cache()

    def sketches(self, names: list[str]) -> dict[str, list[float]]:
        return self._engine.collective_rpc("cohort_sketch", args=(names,))[0]

    def sleep(self) -> None:
        self._llm.sleep(level=2)

    def wake(self) -> None:
        self._llm.wake_up()

    def close(self) -> None:
        """Frees the model, and ends vLLM's process group unless the trainer had one before."""
        from vllm.distributed import parallel_state

        self._engine.engine_core.shutdown()
        parallel_state.destroy_model_parallel()
        if self._owns_group:
            parallel_state.destroy_distributed_environment()
        del self._engine, self._llm

    def _read(self, output: Any) -> Finished:
        key = _external(output.request_id, self._running)
        prompt, started = self._running.pop(key)
        answer = output.outputs[0]
        tokens = list(answer.token_ids)
        scores = zip(tokens, answer.logprobs or (), strict=False)
        asked = zip(prompt[1:], (output.prompt_logprobs or ())[1:], strict=False)
        spans = getattr(answer, "weight_versions", None)
        # Without vLLM's own record the oldest version is the safe one to name.
        return Finished(
            key,
            tokens,
            [at[token].logprob for token, at in scores],
            versions([(s.version, s.start, s.end) for s in spans], len(tokens))
            if spans
            else [started] * len(tokens),
            answer.finish_reason,
            [at[token].logprob for token, at in asked],
        )


def _external(request_id: str, known: Any) -> str:
    """vLLM may add a suffix to the ids it is given."""
    return request_id if request_id in known else request_id.rsplit("-", 1)[0]


def _final() -> Any:
    from vllm.sampling_params import RequestOutputKind

    return RequestOutputKind.FINAL_ONLY


# Images, already turned into patches by the renderer.


def multimodal_prompt(config: Any, tokens: list[int], inputs: dict[str, Any]) -> Any:
    """Engine input of Qwen-VL models: patches are handed over, nothing is processed twice."""
    from vllm.inputs import mm_input
    from vllm.multimodal.inputs import MultiModalKwargsItems, PlaceholderRange

    hf = config.hf_config
    items, hashes, places = image_items(tokens, inputs, hf.image_token_id, hf.vision_config)
    ranges = [PlaceholderRange(offset=start, length=length) for start, length in places]
    items = MultiModalKwargsItems({"image": items})
    return mm_input(tokens, items, {"image": hashes}, {"image": ranges})


def image_items(
    tokens: list[int], inputs: dict[str, Any], image_token: int, vision: Any
) -> tuple[list[Any], list[str], list[tuple[int, int]]]:
    """Per image: vLLM's item, a hash of its content, and (offset, length) of its placeholders."""
    import hashlib

    from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems

    grid, pixels = inputs["image_grid_thw"], inputs["pixel_values"]
    patches = grid.prod(-1)
    fields = {
        "pixel_values": MultiModalFieldConfig.flat_from_sizes("image", patches),
        "image_grid_thw": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
    }
    items = MultiModalKwargsItems.from_hf_inputs(inputs, fields)["image"]  # type: ignore[arg-type]
    hashes = [
        hashlib.blake2b(part.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
        for part in pixels.split(patches.tolist())
    ]
    lengths = (patches // vision.spatial_merge_size**2).tolist()
    places, at = [], 0
    for length in lengths:
        at = tokens.index(image_token, at)
        places.append((at, length))
        at += length
    return list(items), hashes, places


# In vLLM's processes.


def register() -> None:
    """Entry point `vllm.general_plugins`: vLLM calls it in each of its processes."""
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
