"""What a vLLM is started with, and what a request says to it."""

from __future__ import annotations

from importlib.machinery import ModuleSpec

import pytest

from trainer.engines.base import Sampling
from trainer.ops import vllm_arguments
from trainer.ops.vllm_arguments import VllmArguments, flags, sampling_arguments, versions


@pytest.fixture
def vllm_of(tmp_path, monkeypatch):
    """`vllm_of({"file": "text"})`: the installed vLLM has these files."""

    def install(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        spec = ModuleSpec("vllm", None, origin=str(tmp_path / "__init__.py"))
        monkeypatch.setattr(vllm_arguments.importlib.util, "find_spec", lambda name: spec)

    return install


def test_the_first_weights_come_with_a_sync_and_logprobs_are_processed():
    given = VllmArguments().vllm_arguments("cpu", vision=False, seed=2**31 + 5)
    assert given["load_format"] == "dummy"
    assert given["logprobs_mode"] == "processed_logprobs"
    assert given["enable_prefix_caching"] is True
    assert given["seed"] == 5
    assert "limit_mm_per_prompt" not in given
    assert "enable_lora" not in given


def test_memory_is_counted_on_a_cpu_and_shared_on_a_gpu():
    settings = VllmArguments(kv_cache_gib=0.5, gpu_memory_utilization=0.4)
    cpu, gpu = (settings.vllm_arguments(d, vision=False, seed=0) for d in ("cpu:1", "cuda:0"))
    assert (cpu["kv_cache_memory_bytes"], cpu["enforce_eager"]) == (2**29, True)
    assert (gpu["gpu_memory_utilization"], gpu["enforce_eager"]) == (0.4, False)
    assert "kv_cache_memory_bytes" not in gpu


@pytest.mark.parametrize(("rank", "kernel"), [(1, 1), (4, 8), (16, 16), (33, 64), (512, 512)])
def test_adapters_get_the_next_kernel(rank, kernel):
    given = VllmArguments(max_lora_rank=rank).vllm_arguments("cpu", vision=False, seed=0)
    assert (given["enable_lora"], given["max_lora_rank"], given["max_loras"]) == (True, kernel, 2)


def test_what_a_vllm_knows_of_images_is_found_in_its_files(vllm_of):
    def given(rank: int) -> dict:
        return VllmArguments(max_lora_rank=rank).vllm_arguments("cpu", vision=True, seed=0)

    vllm_of({"config/lora.py": "enable_lora: bool"})
    assert not {"enable_tower_connector_lora", "mm_device_do_normalize"} & given(4).keys()
    vllm_of(
        {
            "config/lora.py": "enable_tower_connector_lora: bool = False",
            "model_executor/layers/fusion/mm_input_norm.py": "",
        }
    )
    assert given(4)["enable_tower_connector_lora"] is True
    assert "enable_tower_connector_lora" not in given(0)
    assert given(0)["mm_device_do_normalize"] is False
    assert given(0)["limit_mm_per_prompt"] == {"image": 4, "video": 0}


def test_flags():
    words = flags({"max_num_seqs": 8, "enforce_eager": True, "enable_x": False, "limit": {"a": 1}})
    assert words == [
        "--max-num-seqs",
        "8",
        "--enforce-eager",
        "--no-enable-x",
        "--limit",
        '{"a": 1}',
    ]


def test_a_request_keeps_its_stop_token_and_stays_within_the_model():
    told = sampling_arguments(
        Sampling(max_tokens=50, temperature=0.7, top_k=3), seed=11, stop_ids=(2,), room=20
    )
    assert (told["max_tokens"], told["seed"], told["temperature"]) == (20, 11, 0.7)
    assert (told["stop_token_ids"], told["ignore_eos"]) == ([2], True)
    assert (told["logprobs"], told["detokenize"]) == (0, False)
    assert sampling_arguments(Sampling(stop=("x",)), seed=0, stop_ids=(), room=0)["max_tokens"] == 1


def test_versions_of_tokens():
    assert versions([("7", 0, 2), ("8", 2, 5)], 4) == [7, 7, 8, 8]
    assert versions([("default", 0, 3)], 3) == [0, 0, 0]
    assert versions([], 2) == [0, 0]
