"""Tiny models of several architectures, contexts for an engine, and the plain forward pass that
every log-prob is compared with."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from trainer.context import Context
from trainer.engines.base import Completion, Engine, Request, Sampling
from trainer.models.base import initialised
from trainer.models.tiny_text import TinyText
from trainer.models.tiny_vision import TinyVision

PROMPTS = ("12+30=", "what is 3*4?\nthink well", "7")


@dataclasses.dataclass(frozen=True)
class OtherModel:
    """An architecture that Cohort has no tiny model of, with a tiny model's renderer."""

    model_class: Any
    settings: Any
    like: Any

    def renderer(self) -> Any:
        return self.like.renderer()

    def load(self, *, dtype: str, attn_implementation: Any) -> Any:
        return initialised(
            self.model_class,
            type(self.settings).from_dict(self.settings.to_dict()),
            seed=0,
            dtype=dtype,
            attn_implementation=attn_implementation,
        )


def _gpt2() -> OtherModel:
    vocabulary = TinyText().config().vocab_size
    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=64,
        n_layer=2,
        n_head=2,
        n_positions=256,
        bos_token_id=1,
        eos_token_id=1,
        initializer_range=0.08,
    )
    return OtherModel(GPT2LMHeadModel, config, TinyText())


def _windowed() -> OtherModel:
    config = Qwen2Config(
        **{
            **TinyText().config().to_dict(),
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 1,
            "layer_types": ["full_attention", "sliding_attention"],
        }
    )
    return OtherModel(Qwen2ForCausalLM, config, TinyText())


def _qwen3_vl() -> OtherModel:
    like = TinyVision()
    known = like.config()
    text, vision = known.text_config, known.vision_config
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": text.vocab_size,
            "hidden_size": 96,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "max_position_embeddings": 512,
            "rope_parameters": text.rope_parameters,
            "initializer_range": 0.08,
            "eos_token_id": text.eos_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": vision.patch_size,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 96,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 36,
            "initializer_range": 0.08,
        },
        image_token_id=known.image_token_id,
        video_token_id=known.video_token_id,
        vision_start_token_id=known.vision_start_token_id,
        vision_end_token_id=known.vision_end_token_id,
    )
    return OtherModel(Qwen3VLForConditionalGeneration, config, like)


_MODELS: dict[str, Callable[[], Any]] = {
    "qwen2": TinyText,
    "qwen3": lambda: TinyText(architecture="qwen3", tied=False),
    "qwen2_5_vl": TinyVision,
    "gpt2": _gpt2,
    "windowed": _windowed,
    "qwen3_vl": _qwen3_vl,
}


@pytest.fixture
def make_context(make_context: Callable[..., Context]) -> Callable[..., Context]:
    """`make_context("qwen2", banned_ids=None, stop_ids=None)`; the model is in `context.model`."""
    plain = make_context

    def make(
        name: str,
        *,
        banned_ids: Sequence[int] | None = None,
        stop_ids: Sequence[int] | None = None,
    ) -> Context:
        model = _MODELS[name]()
        renderer = model.renderer()
        if banned_ids is not None or stop_ids is not None:
            renderer = SimpleNamespace(
                render=renderer.render,
                encode=renderer.encode,
                decode=renderer.decode,
                banned_ids=renderer.banned_ids if banned_ids is None else tuple(banned_ids),
                stop_ids=renderer.stop_ids if stop_ids is None else tuple(stop_ids),
            )
        return plain(model, renderer)

    return make


def _picture(width: int, height: int, colour: str) -> Image.Image:
    image = Image.new("RGB", (width, height), (122, 116, 104))
    ImageDraw.Draw(image).rectangle((4, 4, width // 2, height // 2), fill=colour)
    return image


@pytest.fixture
def prompts() -> Callable[[Context], list[tuple[list[int], dict[str, Any]]]]:
    """`prompts(context)`: tokens and inputs of prompts of different lengths; for a vision model
    one with a square image, one with a narrow one, one with both, and one without."""

    def make(context: Context) -> list[tuple[list[int], dict[str, Any]]]:
        renderer = context.renderer
        vision = isinstance(getattr(context.model, "like", context.model), TinyVision)
        if not vision:
            return [(renderer.encode(text), {}) for text in PROMPTS]
        square = {"type": "image", "image": _picture(84, 84, "red")}
        narrow = {"type": "image", "image": _picture(28, 84, "blue")}
        contents: list[Any] = [
            [square, {"type": "text", "text": "where is the red square?"}],
            [narrow, {"type": "text", "text": "what color?"}],
            [square, narrow, {"type": "text", "text": "how many shapes are there?"}],
            "what is 3",
        ]
        rendered = [renderer.render([{"role": "user", "content": c}]) for c in contents]
        return [(r.tokens, r.inputs) for r in rendered]

    return make


@pytest.fixture
def requests_for() -> Callable[..., list[Request]]:
    """`requests_for(prompts, group_size=3, max_tokens=20, seed=0, **sampling)`."""

    def make(
        prompts: Sequence[tuple[list[int], dict[str, Any]]],
        *,
        group_size: int = 3,
        seed: int = 0,
        max_tokens: int = 20,
        **sampling: Any,
    ) -> list[Request]:
        settings = Sampling(max_tokens=max_tokens, **sampling)
        return [
            Request(
                tokens=tokens,
                sampling=settings,
                seed=seed + 1000 * serial + member,
                inputs=inputs,
                order=(serial, member),
            )
            for serial, (tokens, inputs) in enumerate(prompts)
            for member in range(group_size)
        ]

    return make


@pytest.fixture
def sample_all() -> Callable[..., Awaitable[list[Completion]]]:
    """`await sample_all(engine, requests)`: all at once."""

    async def run(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
        return list(await asyncio.gather(*(engine.sample(request) for request in requests)))

    return run


@pytest.fixture
def plain_logprobs() -> Callable[..., torch.Tensor]:
    """`plain_logprobs(model, request, completion, banned_ids)`: f[n] log-probs of the completion
    by one ordinary forward pass of transformers, which finds the positions itself."""

    @torch.no_grad()
    def compute(
        model: Any, request: Request, completion: Completion, banned_ids: Sequence[int]
    ) -> torch.Tensor:
        ids = torch.tensor([request.tokens + completion.tokens])
        extra = {}
        if request.inputs:
            is_image = (ids == model.config.image_token_id).int()
            extra = {**request.inputs, "mm_token_type_ids": is_image}
        logits = model(ids, use_cache=False, **extra).logits[0].double()
        logits[:, list(banned_ids)] = -torch.inf
        logprobs = torch.log_softmax(logits / (request.sampling.temperature or 1.0), -1)
        n = len(request.tokens)
        chosen = torch.tensor(completion.tokens)[:, None]
        return logprobs[n - 1 : -1].gather(1, chosen)[:, 0]

    return compute
