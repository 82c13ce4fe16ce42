"""How a vLLM is started that Cohort can drive: as a server, or as a guest in the trainer."""

from __future__ import annotations

import importlib.util
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.errors import MissingService
from trainer.ops.vllm_arguments import flags, on_cpu

MODEL_NAME = "policy"
SERVER_MARK = "COHORT_VLLM_SERVER"
"""Set in the environment of servers that Cohort started."""


def require_vllm(what: str) -> None:
    """Raises MissingService, which begins with `what`, where vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        raise MissingService(
            f"{what} starts vLLM on this machine, and it is not installed (builds for Linux only): "
            "make setup-vllm, or pip install 'cohort-rl[vllm]' on a machine with a GPU"
        )


def server_command(
    model: Path | str, arguments: dict[str, Any], *, host: str, port: int
) -> list[str]:
    """Starts a server on `model`, a folder or a name on the Hub; `arguments` as `vllm_arguments`
    gives them. Raises MissingService without vLLM."""
    require_vllm("vllm_server with `workers`")
    # Not `vllm serve`: the CPU build of the package has another name, which that command refuses.
    entry = "vllm.entrypoints.launchers.api_server.entry"
    return [
        *(sys.executable, "-m", entry, "--model", str(model), "--served-model-name", MODEL_NAME),
        *("--host", host, "--port", str(port), "--enable-scale-out"),
        *("--disable-log-stats", "--disable-uvicorn-access-log"),
        *flags(arguments),
    ]


def server_environment(
    device: str, *, gpus: tuple[int, ...] = (), adapters: bool = False
) -> dict[str, str]:
    """What a server needs besides our own environment."""
    found = {
        SERVER_MARK: "1",
        "VLLM_SERVER_DEV_MODE": "1",  # routes for weights, pausing and caches
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "60",  # longer than our client keeps a connection
        "TOKENIZERS_PARALLELISM": "false",
    }
    if on_cpu(device):
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 2) // 2))
        found |= {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": threads,
            # Compiling small helpers takes half a minute and saves microseconds.
            "TORCH_COMPILE_DISABLE": "1",
            # Else vLLM puts the model into a third process, and each token crosses one border more.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        }
    if adapters:
        found["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if gpus:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
    return found


@contextmanager
def as_guest() -> Iterator[None]:
    """While a vLLM starts in the trainer's process the process stays the trainer's: vLLM starts no
    processes, binds no threads, and leaves torch's threads and everybody's random state alone."""
    import numpy
    import torch

    wanted = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    try:
        yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.set_num_threads = set_threads
        torch.set_num_threads(threads)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
