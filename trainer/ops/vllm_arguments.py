"""What the vLLM engines share: settings, the folder vLLM reads a model from, what a request says.
Nothing here imports vLLM."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from trainer.plugin import Frozen

if TYPE_CHECKING:
    from trainer.engines.base import Sampling
    from trainer.models.base import Model

BACKEND = "cohort"
"""Name of our way to receive weights, among vLLM's own (nccl, ipc, ...)."""
WORKER = "trainer.vllm_adapter.worker.Worker"
"""What vLLM's workers get besides their own methods."""
_MEMORY = Path("/dev/shm")
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Those vLLM has kernels for."""
_ADAPTERS = 2
"""At once in one batch: the new one, and the one that the replies being written began with."""


class VllmArguments(Frozen):
    """Settings of one vLLM, named as vLLM names them."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: bfloat16 where the device computes it fast, else float32."""
    max_model_len: int | None = Field(None, gt=0)
    """Longest prompt plus reply, in tokens; None takes the model's own limit."""
    max_num_seqs: int = Field(256, gt=0)
    """Replies decoded at once."""
    max_num_batched_tokens: int | None = Field(None, gt=0)
    """Tokens computed in one step; None leaves vLLM's choice."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of a GPU's memory that vLLM may take; colocated with training take 0.3 to 0.5."""
    kv_cache_gib: float = Field(1.0, gt=0)
    """Memory of keys and values on a CPU; on a GPU `gpu_memory_utilization` decides."""
    enforce_eager: bool = False
    """No compilation, no CUDA graphs; always so on a CPU."""
    enable_prefix_caching: bool = True
    """A prompt is read once for its whole group."""
    tensor_parallel_size: int = Field(1, gt=0)
    images: int = Field(4, ge=0)
    """Most images in one prompt of a vision model."""

    max_lora_rank: int = Field(0, ge=0, le=512)
    """Above 0 vLLM takes adapters up to this rank beside the weights, and `weights: vllm_transfer`
    sends a policy's adapter alone; 0: adapters are merged, and all weights are sent."""

    @property
    def adapter_rank(self) -> int:
        return self.max_lora_rank

    def precision_on(self, device: str) -> str:
        """What `dtype` means on `device`."""
        if self.dtype != "auto":
            return self.dtype
        from trainer.ops.devices import fast_dtype

        return fast_dtype(device)

    def vllm_arguments(self, device: str, *, vision: bool, seed: int) -> dict[str, Any]:
        """Keyword arguments of `vllm.LLM`; as `--flags` those of a server."""
        cpu = on_cpu(device)
        given: dict[str, Any] = {
            "dtype": self.precision_on(device),
            "max_num_seqs": self.max_num_seqs,
            "enforce_eager": self.enforce_eager or cpu,
            "enable_prefix_caching": self.enable_prefix_caching,
            "tensor_parallel_size": self.tensor_parallel_size,
            "seed": seed % 2**31,
            "logprobs_mode": "processed_logprobs",
            "load_format": "dummy",  # the first thing that happens is a sync of all weights
            "worker_extension_cls": WORKER,
            "weight_transfer_config": {"backend": BACKEND},
        }
        if cpu:
            if self.tensor_parallel_size == 1:
                given["distributed_executor_backend"] = "uni"
            given["kv_cache_memory_bytes"] = int(self.kv_cache_gib * 2**30)
        else:
            given["gpu_memory_utilization"] = self.gpu_memory_utilization
        if self.max_model_len is not None:
            given["max_model_len"] = self.max_model_len
        if self.max_num_batched_tokens is not None:
            given["max_num_batched_tokens"] = self.max_num_batched_tokens
        if self.max_lora_rank:
            given["enable_lora"] = True
            given["max_lora_rank"] = next(n for n in _LORA_RANKS if n >= self.max_lora_rank)
            given["max_loras"] = _ADAPTERS
            if vision and _has("config/lora.py", "enable_tower_connector_lora"):
                given["enable_tower_connector_lora"] = True  # else the image is seen without it
        if vision:
            given["limit_mm_per_prompt"] = {"image": self.images, "video": 0}
            given["skip_mm_profiling"] = True  # it would make images; ours come as patches
            # Newer vLLMs scale pixels inside the model, and have a switch for it.
            if _has("model_executor/layers/fusion/mm_input_norm.py"):
                given["mm_device_do_normalize"] = False  # the renderer has done it
        return given


def on_cpu(device: str) -> bool:
    """With several processes a CPU is called `cpu:1` too."""
    return device.partition(":")[0] == "cpu"


def _has(file: str, word: str = "") -> bool:
    """Whether the installed vLLM has a file with that word in it: importing vLLM takes seconds."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return False
    path = Path(spec.origin).parent / file
    return path.is_file() and word in path.read_text(encoding="utf-8")


def flags(arguments: dict[str, Any]) -> list[str]:
    """`{"max_num_seqs": 8, "enforce_eager": True}` as `--max-num-seqs 8 --enforce-eager`."""
    words = []
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            text = json.dumps(value) if isinstance(value, dict) else str(value)
            words += [f"--{flag}", text]
    return words


def scratch_folder() -> Path:
    """Where files live that are read once by a neighbour: memory, where the system has it."""
    return _MEMORY if _MEMORY.is_dir() else Path(tempfile.gettempdir())


@contextmanager
def model_folder(model: Model) -> Iterator[Path]:
    """A folder with config and tokenizer, no weights; gone when it is left."""
    with tempfile.TemporaryDirectory(prefix="cohort-model-", dir=scratch_folder()) as name:
        model.save_assets(Path(name))
        yield Path(name)


def sampling_arguments(
    sampling: Sampling, *, seed: int, stop_ids: tuple[int, ...], room: int
) -> dict[str, Any]:
    """Keyword arguments of `vllm.SamplingParams`; over HTTP the same as JSON. `room` is how many
    tokens the model can still take."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "max_tokens": max(1, min(sampling.max_tokens, room)),
        "seed": seed,
        "stop": list(sampling.stop),
        "stop_token_ids": list(stop_ids),
        "ignore_eos": True,  # `stop_ids` has all of them, and keeps them in the reply
        "logprobs": 0,  # of the sampled token only
        "detokenize": bool(sampling.stop),
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
    }


def versions(spans: Sequence[tuple[str, int, int]], n: int) -> list[int]:
    """i[n]: the weights that drew each token; `spans` are (version, start, end). A name that is
    no number is that of the weights vLLM started with."""
    found = [0] * n
    for name, start, end in spans:
        number = int(name) if name.isdigit() else 0
        found[start:end] = [number] * (min(end, n) - start)
    return found
