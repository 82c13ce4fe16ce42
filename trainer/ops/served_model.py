"""A transformers model made ready to sample and to score: what the `hf` engine drives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.errors import DataError, EngineError
from trainer.ops.attention import install, supports_plans
from trainer.ops.caches import PACK_TOKENS, PromptPath, model_inputs, packs, stacked
from trainer.ops.decoding import Prefill
from trainer.ops.generation import Row, generate
from trainer.ops.logprobs import Targets, chunked_logprobs
from trainer.ops.positions import prompt_positions


class ServedModel:
    """Not thread-safe: one call at a time."""

    def __init__(
        self,
        model: PreTrainedModel,
        device: torch.device | str,
        *,
        cache: str,
        stop_ids: Sequence[int],
        banned_ids: Sequence[int],
    ):
        """`cache`: auto | shared | dynamic, as the field of the `hf` engine. Raises EngineError
        for `shared` if the architecture's attention cannot be replaced."""
        possible = supports_plans(type(model), model.config)
        if cache == "shared" and not possible:
            raise EngineError(
                f"engine.cache: shared does not work for {type(model).__name__} (sliding windows, "
                "recurrent layers, or attention code of its own); use auto or dynamic"
            )
        self.shared = possible and cache != "dynamic"
        if self.shared:
            sub_configs = [name for name in model.config.sub_configs if name == "text_config"]
            model.set_attn_implementation(dict.fromkeys(sub_configs, install()) or install())
        self.model: PreTrainedModel = cast("Any", model).to(device).eval().requires_grad_(False)
        self.stop_ids, self.banned_ids = frozenset(stop_ids), sorted(banned_ids)
        text = model.config.get_text_config()
        self.vocabulary: int = text.vocab_size
        self.max_length: int | None = getattr(text, "max_position_embeddings", None)
        self._damaged = ""

    def path(self, tokens: list[int], inputs: dict[str, Any], *, room: int = 1) -> PromptPath:
        """Checks a prompt. Raises EngineError if it is empty, leaves no place for `room` tokens,
        has ids that the model does not know, or if its images do not fit its placeholders."""
        if not tokens:
            raise EngineError("a request without tokens: the prompt is empty")
        if self.max_length is not None and len(tokens) + room > self.max_length:
            raise EngineError(
                f"the prompt has {len(tokens)} tokens and the model reads at most "
                f"{self.max_length} (max_position_embeddings), reply included; shorten the prompt "
                "or drop such rows from the data"
            )
        if not 0 <= min(tokens) <= max(tokens) < self.vocabulary:
            raise EngineError(
                f"token ids from {min(tokens)} to {max(tokens)} for a vocabulary of "
                f"{self.vocabulary}: do model and tokenizer belong together?"
            )
        try:
            return PromptPath(tokens, prompt_positions(self.model, tokens, inputs), inputs)
        except DataError as error:
            raise EngineError(str(error)) from error

    def room(self, tokens: list[int], wanted: int) -> int:
        """How many of `wanted` tokens fit after the prompt."""
        return wanted if self.max_length is None else min(wanted, self.max_length - len(tokens))

    def sample(self, rows: Sequence[Row], done: Callable[[Row], None]) -> None:
        """As `ops.generation.generate`."""
        self._check_whole()
        generate(
            self.model,
            rows,
            done,
            shared=self.shared,
            stop_ids=self.stop_ids,
            banned_ids=self.banned_ids,
        )

    @torch.inference_mode()
    def logprobs(self, paths: Sequence[PromptPath]) -> list[list[float]]:
        """[n - 1] log-probs of tokens 1..n-1 at temperature 1, banned ids outside of the softmax:
        a banned token, such as an image placeholder of the prompt, has -inf."""
        self._check_whole()
        by_length = sorted(range(len(paths)), key=lambda i: len(paths[i].tokens))
        found: dict[int, list[float]] = {}
        lengths = [len(paths[i].tokens) for i in by_length]
        for pack in packs(lengths, PACK_TOKENS if self.shared else 1):
            members = [by_length[i] for i in pack]
            answers = self._pack_logprobs([paths[i] for i in members])
            found.update(zip(members, answers, strict=True))
        return [found[i] for i in range(len(paths))]

    def _pack_logprobs(self, paths: Sequence[PromptPath]) -> list[list[float]]:
        device = self.model.device
        lengths = [len(path.tokens) for path in paths]
        tokens = torch.tensor([token for path in paths for token in path.tokens])
        plan = {"attention_plan": Prefill(lengths, device, store=False)} if self.shared else {}
        hidden = self.model.base_model(
            input_ids=tokens[None].to(device),
            position_ids=stacked([path.positions[:, None] for path in paths], -1, device),
            use_cache=False,
            **plan,
            **model_inputs(paths, device),
        ).last_hidden_state[0]
        first = torch.zeros(len(tokens), dtype=torch.bool)
        first[torch.tensor([0, *lengths[:-1]]).cumsum(0)] = True
        targets = (~first).nonzero()[:, 0]
        if not len(targets):
            return [[] for _ in paths]
        logprobs, _ = chunked_logprobs(
            cast("nn.Module", self.model.get_output_embeddings()),
            hidden,
            Targets(targets - 1, tokens[targets]),
            banned=torch.tensor(self.banned_ids, dtype=torch.int64, device=device),
        )
        return [part.tolist() for part in logprobs.cpu().split([n - 1 for n in lengths])]

    @torch.no_grad()
    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copies a full set of weights in place. A tied weight may come under any of its names.

        Raises EngineError for an unknown name, a wrong shape, or a weight that is missing at the
        end. Weights copied before the error stay, so the model refuses to sample until a whole
        set has arrived.
        """
        own = self.model.state_dict(keep_vars=True)
        missing = {id(tensor): name for name, tensor in self.model.named_parameters()}
        for name, tensor in weights:
            target = own.get(name)
            if target is None:
                raise EngineError(
                    f"weight {name!r} does not exist in the engine's {type(self.model).__name__}; "
                    "policy and engine must load the same model"
                )
            if target.shape != tensor.shape:
                raise EngineError(
                    f"weight {name!r} has shape {tuple(tensor.shape)}, the engine's has "
                    f"{tuple(target.shape)}"
                )
            self._damaged = "the last load of weights stopped half-way"
            target.copy_(tensor)
            missing.pop(id(target), None)
        if missing:
            names = sorted(missing.values())
            raise EngineError(f"{len(names)} weight(s) were not sent: {', '.join(names[:3])}, ...")
        self._damaged = ""

    def _check_whole(self) -> None:
        if self._damaged:
            raise EngineError(f"the engine's weights are not whole: {self._damaged}")
