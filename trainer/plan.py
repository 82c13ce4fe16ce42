"""What a recipe will cost, by arithmetic alone: no weights are loaded, nothing is trained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from trainer.config import Recipe
    from trainer.learning import Beside, Optimizer
    from trainer.models.base import Model
    from trainer.policies.base import Lora, Policy
    from trainer.types import Prompt

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Size:
    """Shape of a model, from its configuration."""

    parameters: int
    trainable: int
    """With LoRA: the adapter's."""
    matmul: int
    """Parameters that take part in a matrix product for every token."""
    hidden: int
    layers: int
    vocabulary: int
    cache_per_token: int
    """Numbers the attention cache keeps per token: 2 x layers x KV heads x head size."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device. Activations and cache are estimates, the rest is exact."""

    weights: int
    gradients: int
    optimiser: int
    reference: int
    critic: int
    """Weights, gradients and optimiser of a critic model."""
    beside: int
    """Models of rewards: weights, gradients, moments, frozen copies."""
    engine: int
    cache: int
    activations: int

    @property
    def total(self) -> int:
        return sum(getattr(self, name) for name in self.__slots__)


@dataclass(frozen=True, slots=True)
class Batch:
    """One step, over all processes; token counts for answers of full length."""

    world: int
    groups: int
    rollouts: int
    updates: int
    prompt_tokens: float
    """Mean per prompt."""
    answer_tokens: int
    """Most per answer."""
    packed_tokens: int
    """Tokens of one pass of the optimiser over the batch."""
    micro_batches: int
    """Per process, update and pass, at the token budget."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What vLLM can hold, from its settings. Bytes are per server."""

    servers: int
    """Of the whole run; in process: one for each trainer process."""
    own_memory: bool
    """False: it lives on the trainer's device."""
    weights: int
    cache: int
    """Keys and values; on a GPU what is left of vLLM's share after the weights, so at most."""
    per_rollout: int
    """Keys and values of an answer of full length, with its part of the group's prompt."""
    at_once: int
    """Most rollouts that are decoded at the same time, by all servers."""
    in_flight: int
    """Rollouts the run asks for at the same time: (max_lag + 1) steps."""
    longest: int | None
    """Most tokens of a prompt and its answer; None: the model's own limit."""


def size_of(recipe: Recipe) -> Size:
    """Of the policy; see `shape_of`."""
    return shape_of(recipe.model, recipe.policy)


def critic_size(recipe: Recipe) -> Size | None:
    """Of the critic's model; None without one."""
    policy = recipe.critic_policy
    if policy is None or recipe.critic is None:
        return None
    return shape_of(recipe.critic.model or recipe.model, policy)


def shape_of(source: Model, policy: Policy) -> Size:
    """Builds the model on the meta device: shapes without storage."""
    import transformers

    config = source.config()
    with torch.device("meta"):
        model = getattr(transformers, config.architectures[0])(config)
    text = config.get_text_config()
    total = sum(p.numel() for p in model.parameters())
    embedding = model.get_input_embeddings().weight.numel()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    lora, value_head = policy.lora, policy.head != "lm"
    head_weights = 0 if tied else model.get_output_embeddings().weight.numel()
    untrained = head_weights if policy.head == "value" else 0  # nothing asks it for logits
    extra = text.hidden_size + 1 if value_head else 0
    matmul = total if tied else total - embedding
    if policy.head == "value":
        matmul = total - embedding - head_weights
    heads = text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    return Size(
        parameters=total + extra,
        trainable=extra + (total - untrained if lora is None else lora_parameters(model, lora)),
        matmul=matmul + extra,
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        vocabulary=text.vocab_size,
        cache_per_token=2 * text.num_hidden_layers * kv_heads * head,
    )


def lora_parameters(model: nn.Module, lora: Lora) -> int:
    """rank x (in + out) of every adapted linear layer; the head is not adapted by `all-linear`."""
    head = model.get_output_embeddings()
    total = 0
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear) or module is head:
            continue
        targets = lora.target_modules
        every = targets == "all-linear"
        names = (targets,) if isinstance(targets, str) else targets
        if every or any(name == one or name.endswith(f".{one}") for one in names):
            total += lora.rank * (module.in_features + module.out_features)
    return total


@dataclass(frozen=True, slots=True)
class Companion:
    """A model that a reward holds, with its shape."""

    what: Beside
    size: Size
    lora: bool


def companions_of(recipe: Recipe) -> list[Companion]:
    """The models that rewards hold."""
    found = []
    for one in recipe.reward.beside():
        policy = one.policy or recipe.policy
        size = shape_of(one.model or recipe.model, policy)
        found.append(Companion(one, size, policy.lora is not None))
    return found


def batch_of(recipe: Recipe, prompt_tokens: Sequence[int], world: int) -> Batch:
    """`prompt_tokens`: lengths of some rendered prompts."""
    rollouts, learner = recipe.rollouts, recipe.learner
    count = rollouts.groups_per_step * rollouts.group_size
    mean = sum(prompt_tokens) / len(prompt_tokens) if prompt_tokens else 0.0
    prompts = rollouts.groups_per_step if recipe.policy.packing == "shared" else count
    packed = round(prompts * mean) + count * rollouts.sampling.max_tokens
    share = packed / world / learner.minibatches
    return Batch(
        world=world,
        groups=rollouts.groups_per_step,
        rollouts=count,
        updates=learner.epochs * learner.minibatches,
        prompt_tokens=mean,
        answer_tokens=rollouts.sampling.max_tokens,
        packed_tokens=packed,
        micro_batches=max(1, -(-round(share) // learner.token_budget)),
    )


def memory_of(
    recipe: Recipe,
    size: Size,
    batch: Batch,
    half: bool,
    serving: Serving | None = None,
    companions: Sequence[Companion] = (),
) -> Memory:
    """`half`: the policy computes in bfloat16. Weights and optimiser state stay float32 then.
    Activations are the policy's: models beside it are not trained at the same time."""
    number = 2 if half else 4
    lora = recipe.policy.lora is not None
    activations = [_activations(recipe.policy, recipe.learner, size, batch, number)]
    critic, of_critic, judge = critic_size(recipe), 0, recipe.critic_policy
    if critic is not None and judge is not None and recipe.critic is not None:
        adapter = critic.trainable if judge.lora is not None else 0
        of_critic = 4 * (critic.parameters + adapter) + 12 * critic.trainable
        # The two are updated one after the other.
        activations.append(_activations(judge, recipe.critic.learner, critic, batch, number))
    live = -(-batch.rollouts // batch.world) * (batch.prompt_tokens + batch.answer_tokens)
    engine = cache = 0
    if serving is not None:
        engine, cache = (0, 0) if serving.own_memory else (serving.weights, serving.cache)
    elif recipe.samples:
        engine, cache = number * size.parameters, round(number * size.cache_per_token * live)
    own_reference = recipe.reference_scores or ("ref_logprobs" in recipe.needs and not lora)
    return Memory(
        weights=4 * (size.parameters + (size.trainable if lora else 0)),
        gradients=4 * size.trainable,
        optimiser=8 * size.trainable,
        reference=4 * size.parameters if own_reference else 0,
        critic=of_critic,
        beside=sum(_held(one) for one in companions),
        engine=engine,
        cache=cache,
        activations=max(activations),
    )


def _held(one: Companion) -> int:
    """Bytes of a companion between passes."""
    size = one.size
    trained = size.trainable if one.what.optimizer is not None else 0
    weights = size.parameters + (size.trainable if one.lora else 0)
    frozen = size.parameters if one.what.reference and not one.lora else 0
    return 4 * (weights + 3 * trained + frozen)


def _activations(policy: Policy, settings: Optimizer, size: Size, batch: Batch, number: int) -> int:
    """Of a micro-batch at the token budget; `number`: bytes each."""
    tokens = min(settings.token_budget, -(-batch.packed_tokens // batch.world))
    # About 17 numbers of width `hidden` per token and layer are kept for the backward pass
    # (arXiv:2205.05198 without attention scores); with checkpointing one, and one layer in full.
    kept = size.layers + 17 if policy.gradient_checkpointing else 17 * size.layers
    logits = 3 * 4 * min(policy.head_chunk, tokens) * size.vocabulary
    return number * kept * size.hidden * tokens + (0 if policy.head == "value" else logits)


def serving_of(
    recipe: Recipe, size: Size, batch: Batch, device: str, memory: int
) -> Serving | None:
    """None for an engine other than vLLM. `memory`: bytes of one GPU, unused on a CPU."""
    from trainer.engines.vllm_server import VllmServer
    from trainer.ops.vllm_arguments import VllmArguments

    engine, rollouts = recipe.engine, recipe.rollouts
    if not isinstance(engine, VllmArguments) or not recipe.samples:
        return None
    number = 4 if engine.precision_on(device) == "float32" else 2
    weights = number * size.parameters
    width = engine.tensor_parallel_size
    cache = round(engine.kv_cache_gib * GIB)
    if device != "cpu":
        cache = max(0, round(engine.gpu_memory_utilization * memory * width) - weights)
    prompt = batch.prompt_tokens
    if engine.enable_prefix_caching:
        prompt /= rollouts.group_size
    per_rollout = max(1, round(number * size.cache_per_token * (prompt + batch.answer_tokens)))
    servers, own = batch.world, False
    if isinstance(engine, VllmServer):
        servers, own = len(engine.urls) or engine.workers * batch.world, True
    return Serving(
        servers=servers,
        own_memory=own,
        weights=weights,
        cache=cache,
        per_rollout=per_rollout,
        at_once=servers * min(engine.max_num_seqs, cache // per_rollout),
        in_flight=(rollouts.max_lag + 1) * batch.rollouts,
        longest=engine.max_model_len,
    )


def adapter_alone(recipe: Recipe) -> bool:
    """True if a publication moves the adapter only; else adapters are merged first."""
    engine = recipe.engine.adapter_rank if recipe.samples else 0
    alone = recipe.weights.name() == "vllm_transfer"
    return bool(engine and alone and recipe.policy.lora is not None)


def sync_bytes(size: Size, half: bool, *, alone: bool) -> int:
    """What one publication of the weights moves; `alone` as `adapter_alone` says."""
    return (2 if half else 4) * (size.trainable if alone else size.parameters)


def flops_rate(device: str, half: bool, seconds: float = 0.3) -> float:
    """Multiply-adds times two per second of square matrix products on `device`, measured now."""
    n = 4096 if device.startswith("cuda") else 768
    dtype = torch.bfloat16 if half else torch.float32
    left, right = (
        torch.randn(n, n, device=device, dtype=dtype),
        torch.randn(n, n, device=device).to(dtype),
    )
    done, spent = -1, 0.0
    start = time.perf_counter()
    while spent < seconds:
        product = left @ right
        product[0, 0].item()  # waits for the device
        done += 1
        if done == 0:  # the first product pays for start-up
            start = time.perf_counter()
        spent = time.perf_counter() - start
    return 2 * n**3 * max(done, 1) / spent


def phase_seconds(
    recipe: Recipe,
    size: Size,
    batch: Batch,
    rate: float,
    companions: Sequence[Companion] = (),
) -> dict[str, float]:
    """Least seconds of a step by phase at `rate`: 2 floating-point operations per parameter and
    token for a forward pass, 6 for forward and backward, 8 with gradient checkpointing."""
    answers = batch.rollouts * batch.answer_tokens
    prompts = batch.groups * batch.prompt_tokens
    once = 2 * size.matmul / rate / batch.world
    critic, judge = critic_size(recipe), recipe.critic_policy
    # One pass gives old log-probs, their entropy and the values of a shared trunk.
    own_pass = recipe.old_logprobs == "recompute" or "old_entropy" in recipe.needs
    own_pass = own_pass or ("values" in recipe.needs and critic is None)
    logprob = once * (("ref_logprobs" in recipe.needs) + own_pass)
    train = once * _passes(recipe.policy) * recipe.learner.epochs
    if critic is not None and judge is not None and recipe.critic is not None:
        by_critic = 2 * critic.matmul / rate / batch.world
        logprob += by_critic
        train += by_critic * _passes(judge) * recipe.critic.learner.epochs
    judging = once if recipe.reference_scores else 0.0
    for one in companions:
        epochs = one.what.optimizer.epochs if one.what.optimizer is not None else 0
        policy = one.what.policy or recipe.policy
        forwards = one.what.passes + _passes(policy) * epochs
        judging += 2 * one.size.matmul / rate / batch.world * forwards
    return {
        "generate": once * (answers + prompts) if recipe.rollouts.agent.samples else 0.0,
        "reward": judging * batch.packed_tokens,
        "logprob": logprob * batch.packed_tokens,
        "train": train * batch.packed_tokens,
    }


def _passes(policy: Policy) -> int:
    """Forward passes that a forward and a backward cost."""
    return 4 if policy.gradient_checkpointing else 3


def prompt_lengths(recipe: Recipe, prompts: Sequence[Prompt]) -> list[int]:
    """Tokens of each rendered prompt, image placeholders included."""
    renderer: Any = recipe.model.renderer()
    return [len(renderer.render(prompt.messages).tokens) for prompt in prompts]
