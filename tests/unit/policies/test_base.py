"""What every policy does beside the forward pass."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from trainer.errors import ConfigError, DataError
from trainer.models.tiny_text import TinyText
from trainer.policies.base import Lora, Policy
from trainer.policies.causal_lm import CausalLM
from trainer.policies.vision_lm import VisionLM

SMALL = {"hidden": 48, "heads": 3, "intermediate": 96}
LORA = Lora(rank=4, alpha=12)


@pytest.fixture
def model() -> TinyText:
    return TinyText(**SMALL)


def stir_adapters(policy: Policy) -> None:
    """peft starts B at 0: then nothing that is tested would be visible."""
    torch.manual_seed(1)
    for name, parameter in policy.module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


# -- the log-probs -------------------------------------------------------------------------


async def test_log_probs_and_entropy_by_hand(opened, model, text_batch) -> None:
    """Temperature divides the logits; banned ids 0 and 1 are outside; 0 off the mask."""
    async with opened(CausalLM(), model) as policy:
        with torch.no_grad():
            seen = policy.evaluate(text_batch, [7, 2], temperature=0.5, entropy=True)
            whole = policy.evaluate(text_batch, temperature=0.5)
    network = model.load(dtype="float32", attn_implementation="sdpa")
    for at, row in enumerate([7, 2]):
        n = int(text_batch.length[row])
        with torch.no_grad():
            logits = network(text_batch.tokens[row : row + 1, :n]).logits[0].double() / 0.5
        shares = logits[:, 2:].softmax(-1)
        for t in range(text_batch.tokens.shape[1]):
            if not text_batch.mask[row, t]:
                assert seen.logprobs[at, t] == seen.entropy[at, t] == 0
                continue
            token = int(text_batch.tokens[row, t]) - 2
            assert seen.logprobs[at, t] == pytest.approx(
                float(shares[t - 1, token].log()), abs=1e-5
            )
            expected = float(-(shares[t - 1] * shares[t - 1].log()).sum())
            assert seen.entropy[at, t] == pytest.approx(expected, abs=1e-5)
    assert whole.entropy is None
    torch.testing.assert_close(whole.logprobs[[7, 2]], seen.logprobs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("packing", ["shared", "flat", "padded"])
async def test_rows_without_actions_have_a_graph_and_no_gradient(
    packing, opened, model, text_batch
) -> None:
    idle = text_batch.with_(mask=torch.zeros_like(text_batch.mask))
    async with opened(CausalLM(packing=packing), model) as policy:
        seen = policy.evaluate(idle, [0, 5], entropy=True)
        assert not seen.logprobs.any()
        (seen.logprobs.sum() + seen.entropy.sum()).backward()
        gradients = [p.grad for p in policy.module.parameters()]
    assert all(g is not None and not g.any() for g in gradients)


async def test_a_row_without_actions_changes_nothing_beside_others(
    opened, model, text_batch
) -> None:
    mask = text_batch.mask.clone()
    mask[1] = False
    async with opened(CausalLM(), model) as policy:
        with torch.no_grad():
            seen = policy.evaluate(text_batch.with_(mask=mask)).logprobs
            full = policy.evaluate(text_batch).logprobs
    assert not seen[1].any()
    torch.testing.assert_close(seen[2:], full[2:], atol=1e-5, rtol=0)


async def test_refuses_banned_and_first_tokens(opened, model, text_batch) -> None:
    tokens, mask = text_batch.tokens.clone(), text_batch.mask.clone()
    tokens[0, int(mask[0].nonzero()[0])] = 1
    mask[3, 0] = True
    async with opened(CausalLM(), model) as policy:
        with pytest.raises(DataError, match=r"token 1 counts as sampled.*\[0, 1\]"):
            policy.evaluate(text_batch.with_(tokens=tokens))
        with pytest.raises(DataError, match="row 3: its first token is sampled"):
            policy.evaluate(text_batch.with_(mask=mask))


async def test_dropout_is_active_with_gradients_only(opened, text_batch) -> None:
    async with opened(CausalLM(), TinyText(**SMALL, attention_dropout=0.5)) as policy:
        policy.module.eval()
        with torch.no_grad():
            quiet = [policy.evaluate(text_batch).logprobs for _ in range(2)]
            probed = [policy.probe([([5, 6, 7], {})]) for _ in range(2)]
        assert not policy.module.training
        trained = [policy.evaluate(text_batch).logprobs.detach() for _ in range(2)]
        assert policy.module.training
        policy.probe([([5, 6, 7], {})])
        assert policy.module.training
    assert torch.equal(*quiet)
    assert probed[0] == probed[1]
    assert not torch.equal(*trained)


@pytest.mark.parametrize("packing", ["shared", "padded"])
async def test_gradient_checkpointing_repeats_dropout(packing, opened, text_batch) -> None:
    gradients = []
    for checkpointing in (False, True):
        policy = CausalLM(packing=packing, gradient_checkpointing=checkpointing)
        async with opened(policy, TinyText(**SMALL, attention_dropout=0.5)) as live:
            torch.manual_seed(3)
            live.evaluate(text_batch, entropy=True).logprobs.sum().backward()
            gradients.append(torch.cat([p.grad.flatten() for p in live.module.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


async def test_bfloat16_computes_in_half_and_keeps_float32_weights(
    opened, model, text_batch
) -> None:
    async with opened(CausalLM(dtype="bfloat16"), model) as policy:
        assert policy.precision == "bfloat16"
        seen = policy.evaluate(text_batch, entropy=True)
        seen.logprobs.sum().backward()
        assert {p.dtype for p in policy.module.parameters()} == {torch.float32}
        assert {p.grad.dtype for p in policy.module.parameters()} == {torch.float32}
    async with opened(CausalLM(dtype="float32"), model) as policy:
        exact = policy.evaluate(text_batch).logprobs
    assert seen.logprobs.dtype == torch.float32
    gap = (seen.logprobs - exact).abs().max()
    assert 1e-4 < gap < 0.2


# -- micro-batches -------------------------------------------------------------------------


async def test_plan_keeps_groups_together_within_the_budget(opened, model, text_batch) -> None:
    # computed tokens: prompts 9, 5, 14; rows 0-3: 11, 0, 12, 16; 4-6: a fork, a chain; 7: 4
    async with opened(CausalLM(), model) as policy:
        rows = [7, 3, 1, 0, 2]
        assert policy.plan(text_batch, rows, 10_000) == [[3, 1, 0, 2, 7]]
        assert policy.plan(text_batch, rows, 9 + 16 + 0 + 11 + 12) == [[3, 1, 0, 2], [7]]
        assert policy.plan(text_batch, rows, 9 + 16 + 0 + 11 + 11) == [[3, 1, 0], [2, 7]]
        assert policy.plan(text_batch, rows, 1) == [[3], [1], [0], [2], [7]]
        assert policy.plan(text_batch, [], 100) == []
    async with opened(CausalLM(packing="flat"), model) as policy:
        assert policy.plan(text_batch, [3, 1, 0], 25 + 9 + 20) == [[3, 1, 0]]
        assert policy.plan(text_batch, [3, 1, 0], 25 + 9 + 19) == [[3, 1], [0]]
    async with opened(CausalLM(packing="padded"), model) as policy:
        assert policy.plan(text_batch, [3, 1, 0], 75) == [[3, 1, 0]]
        assert policy.plan(text_batch, [3, 1, 0], 74) == [[3, 1], [0]]


# -- weights -------------------------------------------------------------------------------


async def test_weights_are_named_as_in_transformers_and_tied_ones_come_once(opened, model) -> None:
    network = model.load(dtype="float32", attn_implementation="sdpa")
    async with opened(CausalLM(), model) as policy:
        found = dict(policy.weights())
        assert policy.vocabulary == found["model.embed_tokens.weight"].shape[0]
    expected = dict(network.named_parameters())
    assert found.keys() == expected.keys()
    assert "lm_head.weight" not in found
    assert all(torch.equal(found[name], p) for name, p in expected.items())


async def test_weights_with_adapters_equal_peft_merged(opened, model) -> None:
    async with opened(CausalLM(lora=LORA), model) as policy:
        stir_adapters(policy)
        before = {n: p.clone() for n, p in policy.module.named_parameters()}
        found = {name: tensor.clone() for name, tensor in policy.weights()}
        assert all(torch.equal(p, before[n]) for n, p in policy.module.named_parameters())
        merged = policy._live.adapter.merge_and_unload()
        expected = dict(merged.named_parameters())
    start = dict(model.load(dtype="float32", attn_implementation="sdpa").named_parameters())
    assert found.keys() == expected.keys() == start.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)
        assert torch.equal(tensor, start[name]) != ("proj" in name and "weight" in name)


async def test_only_adapters_train_and_they_equal_merged_weights(opened, model, text_batch) -> None:
    policy = CausalLM(lora=LORA, gradient_checkpointing=True)
    async with opened(policy, model) as live:
        stir_adapters(live)
        seen = live.evaluate(text_batch).logprobs
        seen.sum().backward()
        trained = {n for n, p in live.module.named_parameters() if p.grad is not None}
        assert trained == {n for n, _ in live.module.named_parameters() if "lora_" in n}
        weights = dict(live.weights())
    async with opened(CausalLM(), model) as whole:
        whole.backbone.load_state_dict(weights, strict=False)
        expected = whole.evaluate(text_batch).logprobs
    torch.testing.assert_close(seen, expected, atol=2e-5, rtol=0)


async def test_adapters_start_the_same_and_leave_the_random_state_alone(opened, model) -> None:
    state = torch.get_rng_state()
    starts = []
    for _ in range(2):
        async with opened(CausalLM(lora=LORA), model) as policy:
            named = policy.module.named_parameters()
            starts.append(torch.cat([p.flatten() for n, p in named if "lora_A" in n]))
    assert starts[0].any()
    assert torch.equal(*starts)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("lora", [None, LORA])
async def test_export_loads_with_transformers_and_gives_equal_logits(
    lora, opened, model, tmp_path
) -> None:
    tokens = torch.tensor([[5, 9, 30, 31, 7]])
    async with opened(CausalLM(lora=lora, packing="padded"), model) as policy:
        stir_adapters(policy)
        policy.module.eval()
        expected = policy.backbone(tokens).logits
        policy.export(tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    torch.testing.assert_close(loaded(tokens).logits, expected, atol=2e-5, rtol=0)
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").exists() == bool(lora)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118 (not a dict)


async def test_export_of_a_vision_model(opened, vision_model, vision_batch, tmp_path) -> None:
    tokens = vision_batch.tokens[:1, : int(vision_batch.length[0])]
    inputs = dict(vision_batch.inputs[0])
    inputs["mm_token_type_ids"] = (tokens == vision_model.config().image_token_id).int()
    async with opened(VisionLM(packing="padded"), vision_model) as policy:
        policy.module.eval()
        expected = policy.backbone(tokens, **inputs).logits
        policy.export(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32)
    torch.testing.assert_close(loaded(tokens, **inputs).logits, expected, atol=1e-5, rtol=0)


async def test_probe_is_teacher_forced_at_temperature_one(
    opened, vision_model, vision_batch
) -> None:
    """Placeholders of the prompt are banned: -inf, as an engine that cannot sample them says."""
    n = int(vision_batch.length[0])
    tokens, inputs = vision_batch.tokens[:1, :n], dict(vision_batch.inputs[0])
    async with opened(VisionLM(), vision_model) as policy:
        found, short = policy.probe([(tokens[0].tolist(), inputs), ([20, 21], {})])
    network = vision_model.load(dtype="float32", attn_implementation="sdpa")
    image = vision_model.config().image_token_id
    inputs["mm_token_type_ids"] = (tokens == image).int()
    with torch.no_grad():
        logits = network(tokens, **inputs).logits[0, :-1]
    logits[:, [0, 1, image]] = float("-inf")
    expected = logits.log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(found), expected, atol=1e-5, rtol=0)
    assert expected.isinf().sum() == 9
    assert len(short) == 1


# -- errors --------------------------------------------------------------------------------


class _Windowed(TinyText):
    """A model whose first layer sees a window only."""

    def config(self):
        from transformers import Qwen2Config

        fields = super().config().to_dict()
        fields |= {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
        fields.pop("layer_types", None)
        return Qwen2Config(**fields)


async def test_windows_need_padding(opened, text_batch, plain, measure, assert_same) -> None:
    model = _Windowed(**SMALL)
    assert "sliding_attention" in model.config().layer_types
    with pytest.raises(ConfigError, match=r"Qwen2ForCausalLM.*set policy.packing=padded"):
        async with opened(CausalLM(), model):
            pass
    ours = await measure(CausalLM(packing="padded"), model, text_batch, dtype=torch.float64)
    assert_same(ours, plain(model, text_batch, torch.float64), 3e-7)


class _Capped(TinyText):
    def config(self):
        config = super().config()
        config.final_logit_softcapping = 30.0
        return config


async def test_changed_logits_are_refused(opened) -> None:
    with pytest.raises(ConfigError, match="final_logit_softcapping"):
        async with opened(CausalLM(), _Capped(**SMALL)):
            pass


async def test_closed_and_adapterless_policies_say_so(opened, model) -> None:
    policy = CausalLM()
    with pytest.raises(RuntimeError, match="not open"):
        policy.module  # noqa: B018
    async with opened(policy, model) as live:
        with pytest.raises(ConfigError, match=r"policy\.lora is not set"):
            live.without_adapter()
    with pytest.raises(RuntimeError, match="not open"):
        policy.probe([])


async def test_attach_finds_the_module_inside_wrappers(opened, model, text_batch) -> None:
    async with opened(CausalLM(), model) as policy:
        inner = policy.module
        wrapped = torch.nn.parallel.DataParallel(inner)
        policy.attach(wrapped)
        assert policy.module is wrapped
        assert policy.bare_module is inner
        assert policy.evaluate(text_batch, [0]).logprobs.any()
        assert not any(re.match(r"module\.", name) for name, _ in policy.weights())
