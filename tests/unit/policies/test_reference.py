from __future__ import annotations

import pytest
import torch

from trainer.config import Reference
from trainer.models.tiny_text import TinyText
from trainer.policies.base import Lora, Policy
from trainer.policies.causal_lm import CausalLM
from trainer.reference import ReferenceModel

MODEL = TinyText(hidden=48, heads=3, intermediate=96, attention_dropout=0.3)
FROZEN = Reference()
EMA = Reference(kind="ema", decay=0.75, every=2)


def train(policy: Policy, by: float = 0.05) -> None:
    """Stands for an optimiser step."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.module.parameters():
            if parameter.requires_grad:
                parameter += by * torch.randn(parameter.shape, generator=generator)


def now(policy: Policy, batch) -> torch.Tensor:
    with torch.no_grad():
        return policy.evaluate(batch, temperature=0.7).logprobs


@pytest.mark.parametrize("lora", [None, Lora(rank=4)])
async def test_frozen_stays_at_the_start(lora, opened, text_batch) -> None:
    async with opened(CausalLM(lora=lora), MODEL) as policy:
        policy.module.train()
        reference = ReferenceModel(policy, FROZEN)
        start = now(policy, text_batch)
        train(policy)
        reference.after_step(1)
        moved = now(policy, text_batch)
        seen = reference.logprobs(text_batch, 0.7, token_budget=40)
        torch.testing.assert_close(seen, start, atol=1e-5, rtol=0)
        assert (moved - start).abs().max() > 0.01
        assert torch.equal(now(policy, text_batch), moved)  # the adapter is on again
        assert not seen.requires_grad
        assert not seen[~text_batch.mask].any()
        assert reference.state_dict() == {}
        reference.load_state_dict({})
        trainable = [n for n, p in policy.module.named_parameters() if p.requires_grad]
        assert all(("lora_" in n) == (lora is not None) for n in trainable)


async def test_the_frozen_adapter_reference_holds_no_second_model(opened) -> None:
    async with opened(CausalLM(lora=Lora(rank=4)), MODEL) as policy:
        assert ReferenceModel(policy, FROZEN)._module is None


@pytest.mark.parametrize("lora", [None, Lora(rank=4)])
async def test_ema_follows_by_its_formula(lora, opened, text_batch) -> None:
    async with opened(CausalLM(lora=lora), MODEL) as policy:
        reference = ReferenceModel(policy, EMA)
        named = policy.bare_module.named_parameters()
        start = {n: p.detach().clone() for n, p in named if p.requires_grad}
        assert reference.state_dict().keys() == start.keys()
        assert all(torch.equal(t, start[n]) for n, t in reference.state_dict().items())
        train(policy)
        reference.after_step(1)
        assert all(torch.equal(t, start[n]) for n, t in reference.state_dict().items())
        reference.after_step(2)
        policies = dict(policy.bare_module.named_parameters())
        for name, tensor in reference.state_dict().items():
            expected = 0.75 * start[name] + 0.25 * policies[name].detach()
            torch.testing.assert_close(tensor, expected)
        seen = reference.logprobs(text_batch, 0.7, token_budget=40)
        with torch.no_grad():
            for name, tensor in reference.state_dict().items():
                policies[name].copy_(tensor)
        torch.testing.assert_close(seen, now(policy, text_batch), atol=1e-5, rtol=0)


async def test_ema_state_comes_back(opened, text_batch) -> None:
    async with opened(CausalLM(), MODEL) as policy:
        reference = ReferenceModel(policy, EMA)
        train(policy)
        reference.after_step(2)
        state = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
        before = reference.logprobs(text_batch, 1.0, token_budget=10_000)
    async with opened(CausalLM(), MODEL) as policy:
        again = ReferenceModel(policy, EMA)
        assert not torch.equal(again.logprobs(text_batch, 1.0, 10_000), before)
        again.load_state_dict(state)
        assert torch.equal(again.logprobs(text_batch, 1.0, 10_000), before)
        with pytest.raises(ValueError, match=r"reference.kind or policy.lora was changed"):
            ReferenceModel(policy, FROZEN).load_state_dict(state)


@pytest.mark.parametrize("lora", [None, Lora(rank=4)])
async def test_rewards_ask_it_while_the_policy_learns(lora, opened) -> None:
    """It has weights of its own: no adapter of the policy is switched off meanwhile."""
    rows = [([5, 9, 30, 31], {}), ([5, 6], {})]
    async with opened(CausalLM(lora=lora), MODEL) as policy:
        reference = ReferenceModel(policy, FROZEN, scores=True)
        start = policy.probe(rows)
        policy.module.train()
        train(policy)
        for seen, expected in zip(reference.score(rows), start, strict=True):
            assert seen == pytest.approx(expected, abs=1e-5)
        assert abs(policy.probe(rows)[0][0] - start[0][0]) > 1e-3
        assert reference.score(rows[1:]) == reference.score(rows)[1:]
        assert policy.module.training


async def test_an_ema_scores_as_it_follows(opened) -> None:
    rows = [([5, 9, 30, 31], {})]
    async with opened(CausalLM(), MODEL) as policy:
        reference = ReferenceModel(policy, Reference(kind="ema", decay=0.0), scores=True)
        train(policy)
        before = reference.score(rows)
        reference.after_step(1)
        assert reference.score(rows)[0] == pytest.approx(policy.probe(rows)[0], abs=1e-5)
        assert reference.score(rows) != before


async def test_a_reference_for_terms_alone_does_not_score(opened) -> None:
    async with opened(CausalLM(lora=Lora(rank=4)), MODEL) as policy:
        with pytest.raises(RuntimeError, match="not opened for rewards"):
            ReferenceModel(policy, FROZEN).score([([5, 6], {})])
