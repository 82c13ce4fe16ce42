"""vLLM as a guest in the trainer's process."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind

from trainer.errors import EngineError
from trainer.ops.vllm_arguments import on_cpu, versions
from trainer.ops.vllm_launch import as_guest
from trainer.vllm_adapter import check_version
from trainer.vllm_adapter.images import Packer

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


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
        self._eager = on_cpu(device) and arguments.get("enforce_eager", False)
        with self._quick(), as_guest():
            self._llm = LLM(model=str(folder), disable_log_stats=True, **arguments)
        self._engine = self._llm.llm_engine
        self._engine.collective_rpc("cohort_ban", args=(list(banned),))
        self._engine.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": {}})
        self.max_length: int = self._engine.model_config.max_model_len
        self._packer = Packer(self._engine.model_config.hf_config)
        self._version = 0
        self._adapter: Any = None
        """vLLM's LoRARequest of the current version."""
        self._adapters: list[Any] = []
        """The current one, and older ones that replies being written began with."""
        self._running: dict[str, tuple[list[int], int, Any]] = {}
        """Prompt, and version and adapter at its start."""

    @contextmanager
    def _quick(self) -> Iterator[None]:
        """On a CPU vLLM compiles small helpers for half a minute that save microseconds; and its
        attention asks OpenMP for the number of threads, which a new thread only has from torch
        once it asked torch."""
        torch.get_num_threads()
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
        prompt: Any = {"type": "token", "prompt_token_ids": tokens}
        if inputs:
            prompt = self._packer.images(inputs).prompt(tokens)
        try:
            self._engine.add_request(
                key,
                prompt,
                SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, **sampling),
                lora_request=self._adapter,
            )
        except ValueError as error:
            raise EngineError(f"vLLM refuses the request: {error}") from error
        self._running[key] = (tokens, self._version, self._adapter)

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
        self._version, self._adapter = version, None
        if hasattr(self._engine, "set_weight_version"):
            self._engine.set_weight_version(str(version))
        self._engine.reset_prefix_cache(reset_running_requests=True)
        if self._engine.model_config.is_multimodal_model:
            self._engine.reset_encoder_cache()

    def load_adapter(self, folder: Path, version: int) -> None:
        """Requests that run end with the adapter they began with."""
        number = 1 + max((other.lora_int_id for other in self._adapters), default=0)
        adapter = LoRARequest(f"version-{version}-{number}", number, str(folder))
        self._engine.add_lora(adapter)
        self._adapter, self._version = adapter, version
        self._adapters.append(adapter)
        used = [adapter, *(one for _, _, one in self._running.values())]
        for old in [one for one in self._adapters if one not in used]:
            self._engine.remove_lora(old.lora_int_id)
            self._adapters.remove(old)
            shutil.rmtree(old.lora_path)

    def sketches(self, names: list[str]) -> dict[str, list[float]]:
        if self._adapter is not None:  # applied beside the weights: none can be read back
            return {}
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
        prompt, started, adapter = self._running.pop(key)
        answer = output.outputs[0]
        tokens = list(answer.token_ids)
        scores = zip(tokens, answer.logprobs or (), strict=False)
        asked = zip(prompt[1:], (output.prompt_logprobs or ())[1:], strict=False)
        spans = getattr(answer, "weight_versions", None) if adapter is None else None
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
