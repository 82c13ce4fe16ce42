"""Value heads: which hidden state they read, in which packing, and what they leave alone."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from trainer.errors import ConfigError
from trainer.models.tiny_text import TinyText
from trainer.ops.logprobs import LogprobModel
from trainer.policies.base import Lora, Policy
from trainer.policies.causal_lm import CausalLM
from trainer.policies.vision_lm import VisionLM

SMALL = {"hidden": 48, "heads": 3, "intermediate": 96}
LORA = Lora(rank=4, alpha=12)
PACKINGS = ["shared", "flat", "padded"]
HEADS = [("value", "before"), ("value", "after"), ("both", "before")]


@pytest.fixture
def model() -> TinyText:
    return TinyText(**SMALL)


def stir(policy: Policy) -> None:
    """The head starts at 0, and peft's B too: then nothing that is tested would be visible."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.bare_module.named_parameters():
            if "value_head" in name or "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def by_hand(policy: Policy, network, batch, at: str) -> torch.Tensor:
    """One row at a time: the hidden state at t - 1 (`before`) or t (`after`), times the head."""
    head = policy.bare_module.value_head
    found = torch.zeros(batch.tokens.shape)
    for i, n in enumerate(batch.length.tolist()):
        tokens, inputs = batch.tokens[i : i + 1, :n], dict(batch.inputs[i])
        if inputs:
            inputs["mm_token_type_ids"] = (tokens == network.config.image_token_id).int()
        with torch.no_grad():
            hidden = network.base_model(input_ids=tokens, **inputs).last_hidden_state[0]
            values = head(hidden)[:, 0]
        for t in batch.mask[i].nonzero()[:, 0].tolist():
            found[i, t] = values[t - (at == "before")]
    return found


@pytest.mark.parametrize(("head", "at"), HEADS)
@pytest.mark.parametrize("packing", PACKINGS)
async def test_values_by_hand(packing, head, at, opened, model, text_batch) -> None:
    async with opened(CausalLM(packing=packing, head=head, value_at=at), model) as policy:
        stir(policy)
        with torch.no_grad():
            seen = policy.evaluate(text_batch)
            some = policy.evaluate(text_batch, [7, 2])
        network = model.load(dtype="float32", attn_implementation="sdpa")
        expected = by_hand(policy, network, text_batch, at)
    assert expected[text_batch.mask].unique().numel() > 20
    torch.testing.assert_close(seen.values, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(some.values, expected[[7, 2]], atol=2e-5, rtol=0)
    assert not seen.values[~text_batch.mask].any()
    assert seen.logprobs.any() == (head == "both")


@pytest.mark.parametrize(("head", "at"), HEADS)
@pytest.mark.parametrize("packing", PACKINGS)
async def test_values_of_images_by_hand(
    packing, head, at, opened, vision_model, vision_batch, pick
) -> None:
    batch = pick(vision_batch, [0, 1, 2, 3, 4, 7])  # the tree's branches have images of their own
    async with opened(VisionLM(packing=packing, head=head, value_at=at), vision_model) as policy:
        stir(policy)
        with torch.no_grad():
            seen = policy.evaluate(batch)
            whole = policy.evaluate(vision_batch)
        network = vision_model.load(dtype="float32", attn_implementation="sdpa")
        expected = by_hand(policy, network, batch, at)
    torch.testing.assert_close(seen.values, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(whole.values[[0, 1, 2, 3, 4, 7]], expected, atol=2e-5, rtol=0)
    assert whole.values[vision_batch.mask].all()


async def test_a_new_head_says_zero_and_leaves_the_random_state_alone(
    opened, model, text_batch
) -> None:
    state = torch.get_rng_state()
    async with opened(CausalLM(head="both"), model) as policy:
        assert torch.equal(torch.get_rng_state(), state)
        assert not policy.evaluate(text_batch).values.any()


async def test_the_head_beside_it_changes_no_log_prob(opened, model, text_batch) -> None:
    found = []
    for head in ("lm", "both"):
        async with opened(CausalLM(head=head), model) as policy:
            if head == "both":
                stir(policy)
            with torch.no_grad():
                seen = policy.evaluate(text_batch, temperature=0.7, entropy=True)
        found.append(seen)
    assert torch.equal(found[0].logprobs, found[1].logprobs)
    assert torch.equal(found[0].entropy, found[1].entropy)
    assert found[0].values is None


@pytest.mark.parametrize("packing", PACKINGS)
async def test_the_gradient_by_finite_differences(packing, opened, model, text_batch) -> None:
    """Along random directions of the head, the trunk and the embedding. Weights are float64, but
    Qwen2's norms compute in float32, so the steps cannot be smaller."""
    at = torch.arange(text_batch.tokens.shape[1])
    weight = torch.sin(text_batch.tokens.cumsum(1) * 31.0 + at).double()
    policy = CausalLM(packing=packing, head="value")
    async with opened(policy, model, torch.float64) as live:
        stir(live)

        def loss() -> torch.Tensor:
            return (weight * live.evaluate(text_batch).values ** 2).sum()

        loss().backward()
        named = dict(live.module.named_parameters())
        for name in (
            "value_head.weight",
            "value_head.bias",
            "backbone.model.layers.0.self_attn.k_proj.weight",
            "backbone.model.layers.1.mlp.down_proj.weight",
            "backbone.model.embed_tokens.weight",
        ):
            parameter = named[name]
            generator = torch.Generator().manual_seed(2)
            way = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            ends = []
            for step in (3e-4, -6e-4):
                with torch.no_grad():
                    parameter += step * way
                    ends.append(loss().item())
            with torch.no_grad():
                parameter += 3e-4 * way
            slope = (ends[0] - ends[1]) / 6e-4
            assert (parameter.grad * way).sum().item() == pytest.approx(slope, rel=2e-3), name


@pytest.mark.parametrize("budget", [1, 30])
async def test_micro_batches_and_packings_have_one_gradient(
    budget, opened, model, text_batch
) -> None:
    found = []
    for packing, tokens in ((packing, t) for packing in PACKINGS for t in (budget, 10**6)):
        policy = CausalLM(packing=packing, head="value")
        async with opened(policy, model, torch.float64) as live:
            stir(live)
            for part in live.plan(text_batch, range(len(text_batch.tokens)), tokens):
                (live.evaluate(text_batch, part).values ** 2).sum().backward()
            grads = [p.grad for p in live.module.parameters() if p.grad is not None]
            found.append(torch.cat([g.flatten() for g in grads]))
    for other in found[1:]:
        assert (other - found[0]).norm() < 1e-6 * found[0].norm()  # norms compute in float32


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("head", ["value", "both"])
async def test_rows_without_actions_have_a_graph_and_no_gradient(
    head, packing, opened, model, text_batch
) -> None:
    idle = text_batch.with_(mask=torch.zeros_like(text_batch.mask))
    async with opened(CausalLM(packing=packing, head=head), model) as policy:
        stir(policy)
        seen = policy.evaluate(idle, [0, 5])
        assert not seen.values.any()
        seen.values.sum().backward()
        assert not any(p.grad.any() for p in policy.module.parameters() if p.grad is not None)
        assert policy.bare_module.value_head.weight.grad is not None


@pytest.mark.parametrize("tied", [True, False])
async def test_a_head_that_nothing_asks_is_not_trained(tied, opened, text_batch) -> None:
    """Without a gradient DDP would wait for it for ever; a tied one is the embedding."""
    async with opened(CausalLM(head="value"), TinyText(**SMALL, tied=tied)) as policy:
        stir(policy)
        policy.evaluate(text_batch).values.sum().backward()
        trained = policy.trained()
        assert all(p.grad is not None for p in trained.values())
        assert not any("lm_head" in name for name in trained)
        assert {"value_head.weight", "value_head.bias"} < set(trained)


@pytest.mark.parametrize("head", ["value", "both"])
async def test_beside_adapters_the_value_head_is_trained(head, opened, model, text_batch) -> None:
    async with opened(CausalLM(head=head, lora=LORA), model) as policy:
        stir(policy)
        policy.evaluate(text_batch).values.sum().backward()
        trained = {n for n, p in policy.module.named_parameters() if p.grad is not None}
        assert trained == set(policy.trained())
        assert all("lora_" in name or "value_head" in name for name in trained)
        with torch.no_grad():
            adapted = policy.evaluate(text_batch).values
            with policy.without_adapter():
                start = policy.evaluate(text_batch).values
    assert not torch.allclose(adapted, start)


async def test_bfloat16_keeps_values_finer_than_its_own_steps(opened, model, text_batch) -> None:
    """A bfloat16 number near 30 is a multiple of 1/8."""
    async with opened(CausalLM(dtype="bfloat16", head="both"), model) as policy:
        stir(policy)
        with torch.no_grad():
            policy.bare_module.value_head.bias.fill_(30.0)
        seen = policy.evaluate(text_batch)
        (seen.values.sum() + seen.logprobs.sum()).backward()
        grads = {p.grad.dtype for p in policy.module.parameters()}
    values = seen.values[text_batch.mask]
    assert values.dtype == torch.float32
    assert grads == {torch.float32}
    assert (values * 8 != (values * 8).round()).float().mean() > 0.5


@pytest.mark.parametrize("lora", [None, LORA])
async def test_engine_export_and_weights_know_nothing_of_it(lora, opened, model, tmp_path) -> None:
    names = []
    tokens = torch.tensor([[5, 9, 30, 31, 7]])
    for head in ("lm", "both"):
        async with opened(CausalLM(lora=lora, head=head, packing="padded"), model) as policy:
            stir(policy)
            names.append([name for name, _ in policy.weights()])
            policy.module.eval()
            expected = policy.backbone(tokens).logits
            probed = policy.probe([([5, 9, 30], {})])
            policy.export(tmp_path / head)
    assert names[0] == names[1]
    assert len(probed[0]) == 2
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "both", dtype=torch.float32)
    torch.testing.assert_close(loaded(tokens).logits, expected, atol=2e-5, rtol=0)
    assert (tmp_path / "both" / "adapter").exists() == bool(lora)


async def test_a_fresh_module_has_the_same_heads(opened, model, text_batch) -> None:
    """Which an `ema` reference follows tensor by tensor."""
    async with opened(CausalLM(head="both"), model) as policy:
        stir(policy)
        other = policy.fresh_module()
        assert isinstance(other, LogprobModel)
        names = [name for name, _ in other.named_parameters()]
        assert names == [name for name, _ in policy.bare_module.named_parameters()]
        with torch.no_grad():
            assert not policy.evaluate(text_batch, module=other).values.any()


async def test_errors(opened, model) -> None:
    with pytest.raises(ValidationError, match="value_at: after reads other positions"):
        CausalLM(head="both", value_at="after")
    with pytest.raises(ValidationError, match="value_at: after"):
        CausalLM(value_at="after")
    async with opened(CausalLM(head="value"), model) as policy:
        with pytest.raises(ConfigError, match=r"policy\.head: value has no log-probs"):
            policy.probe([([5, 6, 7], {})])
