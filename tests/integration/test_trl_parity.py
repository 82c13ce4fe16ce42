"""One batch of tokens and rewards through our learner and through TRL's GRPOTrainer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.config import Recipe
from trainer.context import Context
from trainer.distributed import Distributed
from trainer.learner import Learner
from trainer.models.tiny_text import TinyText
from trainer.types import Batch

pytestmark = pytest.mark.slow

GROUPS, SIZE, PROMPT, REPLY = 2, 4, 5, 7
PROMPTS = (5, 3)
REPLIES = (7, 2, 5, 4, 1, 6, 3, 7)
REWARDS = (1.0, 0.0, 0.25, 0.5, 0.0, 1.0, 1.0, 0.2)
TEMPERATURE, BETA = 0.8, 0.3
MODEL = TinyText(hidden=32, heads=2, intermediate=48)


@dataclasses.dataclass
class NothingBanned:
    """TRL's softmax is over the whole vocabulary."""

    banned_ids: tuple[int, ...] = ()


@dataclasses.dataclass
class Data:
    """Right-aligned prompts and left-aligned replies, as TRL wants them."""

    prompts: Tensor  # i[B, PROMPT]
    prompt_mask: Tensor
    replies: Tensor  # i[B, REPLY]
    reply_mask: Tensor
    old: Tensor  # f[B, REPLY]
    reference: Tensor  # f[B, REPLY]


@pytest.fixture(scope="module")
def data() -> Data:
    generator = torch.Generator().manual_seed(0)
    rows = GROUPS * SIZE
    place = torch.arange(PROMPT)
    prompt_mask = torch.stack([place >= PROMPT - n for n in PROMPTS for _ in range(SIZE)])
    reply_mask = torch.arange(REPLY) < torch.tensor(REPLIES)[:, None]
    prompts = torch.randint(6, 100, (GROUPS, PROMPT), generator=generator)
    replies = torch.randint(6, 100, (rows, REPLY), generator=generator)
    return Data(
        prompts.repeat_interleave(SIZE, 0) * prompt_mask,
        prompt_mask.long(),
        replies * reply_mask,
        reply_mask.long(),
        old=-3.0 - 3 * torch.rand(rows, REPLY, generator=generator),
        reference=-3.0 - 3 * torch.rand(rows, REPLY, generator=generator),
    )


def our_batch(data: Data, *, old: bool) -> Batch:
    rows, width = GROUPS * SIZE, PROMPT + REPLY
    names = ("tokens", "mask", "old", "reference", "rewards")
    columns = {name: torch.zeros(rows, width) for name in names}
    lengths = []
    for row in range(rows):
        start, n = PROMPTS[row // SIZE], REPLIES[row]
        lengths.append(start + n)
        columns["tokens"][row, :start] = data.prompts[row, PROMPT - start :]
        columns["tokens"][row, start : start + n] = data.replies[row, :n]
        columns["mask"][row, start : start + n] = 1
        columns["old"][row, start : start + n] = data.old[row, :n]
        columns["reference"][row, start : start + n] = data.reference[row, :n]
        columns["rewards"][row, start + n - 1] = REWARDS[row]
    mask = columns["mask"].bool()
    return Batch(
        tokens=columns["tokens"].long(),
        mask=mask,
        length=torch.tensor(lengths),
        turn=mask.long() - 1,
        version=mask.long() - 1,
        rewards=columns["rewards"],
        weight=torch.ones(rows, width),
        group=torch.arange(rows) // SIZE,
        rollout=torch.arange(rows),
        sampled_logprobs=columns["old"],
        old_logprobs=columns["old"] if old else None,
        ref_logprobs=columns["reference"],
        inputs=({},) * rows,
    )


async def ours(data: Data, tmp_path: Path, *, old: bool, **fields: Any) -> tuple[dict, dict]:
    """Report and gradients of one update, in small packed micro-batches."""
    recipe = Recipe(
        name="parity",
        steps=1,
        model=MODEL,
        prompts="synthetic/arithmetic",
        policy={"type": "causal_lm", "dtype": "float32"},
        rollouts={"sampling": {"temperature": TEMPERATURE, "max_tokens": REPLY}},
        learner={"token_budget": 24, "clip_norm": None},
        **fields,
    )
    context = Context(
        tmp_path,
        0,
        1,
        "cpu",
        0,
        1,
        model=MODEL,
        renderer=NothingBanned(),  # type: ignore[arg-type]
    )
    gradients: dict[str, Tensor] = {}
    async with recipe.policy.open(context):
        learner = Learner(recipe, recipe.policy, None, Distributed.start(cpu=True))

        def keep(*_: object) -> None:
            gradients.update(
                {n: p.grad.clone() for n, p in recipe.policy.backbone.named_parameters()}
            )

        learner.optimizer.optimizer.register_step_pre_hook(keep)
        batch = our_batch(data, old=old)
        if "old_entropy" in recipe.needs:
            entropy = learner.updater.evaluate(batch, entropy=True).entropy
            batch = batch.with_(extra={"old_entropy": entropy})
        report = learner.update(learner.advantage(batch), 1)
    return report, gradients


def theirs(
    data: Data, tmp_path: Path, *, old: bool, micro_rows: int, **options: Any
) -> tuple[float, dict]:
    """Loss and gradients of TRL over micro-batches of `micro_rows` rows."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
    from trl.trainer.utils import nanstd

    rows = GROUPS * SIZE
    accumulation = rows // micro_rows
    model = MODEL.load(dtype="float32", attn_implementation="sdpa")
    model.save_pretrained(tmp_path / "model")  # TRL loads its reference model by name
    model.config._name_or_path = str(tmp_path / "model")
    trainer = GRPOTrainer(
        model=model,
        processing_class=MODEL.renderer().tokenizer,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_list([{"prompt": "1+1="}] * rows),
        args=GRPOConfig(
            output_dir=str(tmp_path / "trl"),
            per_device_train_batch_size=micro_rows,
            gradient_accumulation_steps=accumulation,
            num_generations=SIZE,
            max_completion_length=REPLY,
            temperature=TEMPERATURE,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            **options,
        ),
    )
    trainer.current_gradient_accumulation_steps = accumulation
    rewards = torch.tensor(REWARDS)
    grouped = rewards.view(-1, SIZE)
    advantages = rewards - grouped.nanmean(1).repeat_interleave(SIZE)
    if options.get("scale_rewards", "group") == "group":
        advantages = advantages / (nanstd(grouped, dim=1).repeat_interleave(SIZE) + 1e-4)
    trainer.model.train()
    loss = 0.0
    for start in range(0, rows, micro_rows):
        cut = slice(start, start + micro_rows)
        inputs = {
            "prompt_ids": data.prompts[cut],
            "prompt_mask": data.prompt_mask[cut],
            "completion_ids": data.replies[cut],
            "completion_mask": data.reply_mask[cut],
            "advantages": advantages[cut],
            "ref_per_token_logps": data.reference[cut],
            "num_items_in_batch": data.reply_mask.sum(),
        }
        if old:
            inputs["old_per_token_logps"] = data.old[cut]
        share = trainer.compute_loss(trainer.model, inputs)
        share.backward()
        loss += share.item()
    gradients = {name: p.grad for name, p in trainer.model.named_parameters()}
    return loss, gradients


GRPO = {"type": "grpo", "eps": 1e-4}
ROWS = GROUPS * SIZE
CASES = {
    "grpo": (GRPO, {"aggregation": "seq_mean_token_mean"}, 2, {}),
    "dapo": (GRPO, {"aggregation": "token_mean", "clip_high": 0.28}, 2, {"epsilon_high": 0.28}),
    "bnpo": (GRPO, {"aggregation": "token_mean_local", "local_rows": 2}, 2, {}),
    "dr_grpo": (
        {"type": "dr_grpo"},
        {"aggregation": "seq_mean_token_sum_norm"},
        4,
        {"scale_rewards": "none"},
    ),
    "luspo": (GRPO, {"aggregation": "seq_length_weighted"}, 2, {}),
    "cispo": (GRPO, {"type": "cispo", "is_weight_max": 1.2}, 2, {"epsilon_high": 1.2}),
    "sapo": (GRPO, {"type": "sapo"}, 2, {}),
    "vespo": (GRPO, {"type": "vespo"}, 2, {}),
    "two_sided": (GRPO, {"dual_clip": 1.5}, 2, {"loss_type": "dapo", "delta": 1.5}),
}
"""Advantage, loss, rows of TRL's micro-batches, and TRL's options; by TRL's `loss_type`."""
SEQUENCE = {"loss_type": "grpo", "importance_sampling_level": "sequence"}
GSPO = {"type": "gspo", "clip_low": 0.2, "clip_high": 0.2}
SEQUENCE_CASES = {
    "gspo": (GRPO, GSPO, 2, SEQUENCE),
    "gspo_token": (GRPO, {**GSPO, "level": "token"}, 2, SEQUENCE),
    "gspo_dapo": (
        GRPO,
        {**GSPO, "aggregation": "token_mean"},
        2,
        {**SEQUENCE, "loss_type": "dapo"},
    ),
    "luspo": (
        GRPO,
        {**GSPO, "aggregation": "seq_length_weighted"},
        2,
        {**SEQUENCE, "loss_type": "luspo"},
    ),
}


async def compare(
    data: Data, tmp_path: Path, *, old: bool, case: tuple, kl: str = "no_kl", modifiers: tuple = ()
) -> dict:
    """Loss and every gradient of both; returns our report."""
    advantage, loss, micro_rows, options = case
    corrected = kl == "corrected_k3"
    beta = 0.0 if kl == "no_kl" else BETA
    term = {"type": "kl", "estimator": "k3", "coef": beta, "off_policy_correction": corrected}
    report, gradients = await ours(
        data,
        tmp_path,
        old=old,
        advantage=advantage,
        loss={"type": "ppo_clip", **loss},
        modifiers=[*modifiers, *([term] if beta else [])],
    )
    their_loss, expected = theirs(
        data,
        tmp_path,
        old=old,
        micro_rows=micro_rows,
        beta=beta,
        use_bias_correction_kl=corrected,
        **options,
    )
    same(report, gradients, their_loss, expected)
    return report


def same(report: dict, gradients: dict, their_loss: float, expected: dict) -> None:
    assert report["train/loss"] == pytest.approx(their_loss, rel=1e-6, abs=1e-6)
    assert gradients.keys() == expected.keys()
    off = sum((gradients[name] - g).double().square().sum() for name, g in expected.items())
    size = sum(g.double().square().sum() for g in expected.values())
    assert (off / size).sqrt() < 2e-6  # float32, packed on one side and padded on the other
    largest = max(g.abs().max().item() for g in expected.values())
    for parameter, gradient in expected.items():
        torch.testing.assert_close(
            gradients[parameter], gradient, rtol=1e-5, atol=1e-5 * largest, msg=parameter
        )


@pytest.mark.parametrize("kl", ["no_kl", "k3", "corrected_k3"])
@pytest.mark.parametrize("old", [False, True], ids=["on_policy", "second_update"])
@pytest.mark.parametrize("name", list(CASES))
async def test_loss_and_gradients_equal_trls(
    data: Data, tmp_path: Path, name: str, old: bool, kl: str
) -> None:
    """With `old`, ratios are far from 1 and many actions are clipped on either side."""
    advantage, loss, micro_rows, options = CASES[name]
    case = (advantage, loss, micro_rows, {"loss_type": name, **options})
    report = await compare(data, tmp_path, old=old, case=case, kl=kl)
    if old and "type" not in loss:
        assert report["train/clip_high"] > 0
        assert report["train/clip_low"] > 0
    if old and name == "cispo":
        assert 0 < report["train/clip_high"] < 1


@pytest.mark.parametrize("kl", ["no_kl", "k3"])
@pytest.mark.parametrize("old", [False, True], ids=["on_policy", "second_update"])
@pytest.mark.parametrize("name", list(SEQUENCE_CASES))
async def test_one_ratio_per_answer(
    data: Data, tmp_path: Path, name: str, old: bool, kl: str
) -> None:
    report = await compare(data, tmp_path, old=old, case=SEQUENCE_CASES[name], kl=kl)
    if old:
        assert 0 < report["train/clip_high"] + report["train/clip_low"] < 1


WHOLE = (GRPO, {"aggregation": "token_mean"}, ROWS)
"""TRL makes the statistics below over a micro-batch: it gets a single one."""


@pytest.mark.parametrize("old", [False, True], ids=["on_policy", "second_update"])
@pytest.mark.parametrize("kl", ["no_kl", "k3"])
async def test_only_high_entropy_tokens(data: Data, tmp_path: Path, old: bool, kl: str) -> None:
    options = {"loss_type": "dapo", "top_entropy_quantile": 0.4}
    mask = {"type": "token_entropy_mask", "low": 0.6}
    report = await compare(
        data, tmp_path, old=old, case=(*WHOLE, options), kl=kl, modifiers=(mask,)
    )
    assert 0.3 < report["train/entropy_kept"] < 0.5


async def test_an_entropy_bonus(data: Data, tmp_path: Path) -> None:
    options = {"loss_type": "dapo", "entropy_coef": 0.3}
    bonus = {"type": "entropy", "coef": 0.3}
    await compare(data, tmp_path, old=True, case=(*WHOLE, options), modifiers=(bonus,))


async def test_off_policy_answers_with_a_negative_advantage(data: Data, tmp_path: Path) -> None:
    options = {"loss_type": "dapo", "off_policy_mask_threshold": 0.1}
    mask = {"type": "tis", "mode": "none", "off_policy_delta": 0.1}
    report = await compare(
        data, tmp_path, old=True, case=(*WHOLE, options), kl="k3", modifiers=(mask,)
    )
    assert 0 < report["train/tis_off_policy"] < 0.5


@pytest.mark.parametrize("old", [False, True], ids=["on_policy", "second_update"])
async def test_rloo(data: Data, tmp_path: Path, old: bool) -> None:
    """TRL's RLOO: the ratio of the whole answer, clipped at 0.2."""
    report, gradients = await ours(
        data,
        tmp_path,
        old=old,
        advantage="rloo",
        loss={**GSPO, "ratio": "product", "log_ratio_max": 50.0},
    )
    same(report, gradients, *theirs_rloo(data, tmp_path, old=old, micro_rows=2))
    if old:
        assert 0 < report["train/clip_high"] + report["train/clip_low"] < 1


def theirs_rloo(data: Data, tmp_path: Path, *, old: bool, micro_rows: int) -> tuple[float, dict]:
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    accumulation = ROWS // micro_rows
    trainer = RLOOTrainer(
        model=MODEL.load(dtype="float32", attn_implementation="sdpa"),
        processing_class=MODEL.renderer().tokenizer,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_list([{"prompt": "1+1="}] * ROWS),
        args=RLOOConfig(
            output_dir=str(tmp_path / "trl"),
            per_device_train_batch_size=micro_rows,
            gradient_accumulation_steps=accumulation,
            num_generations=SIZE,
            max_completion_length=REPLY,
            temperature=TEMPERATURE,
            beta=0.0,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        ),
    )
    rewards = torch.tensor(REWARDS)
    total = rewards.view(-1, SIZE).sum(1).repeat_interleave(SIZE)
    advantages = rewards - (total - rewards) / (SIZE - 1)
    trainer.model.train()
    loss = 0.0
    for start in range(0, ROWS, micro_rows):
        cut = slice(start, start + micro_rows)
        mask = data.reply_mask[cut]
        inputs = {
            "prompt_ids": data.prompts[cut],
            "prompt_mask": data.prompt_mask[cut],
            "completion_ids": data.replies[cut],
            "completion_mask": mask,
            "advantages": advantages[cut],
        }
        before = data.old[cut]
        if not old:
            with torch.no_grad():
                before = trainer._get_per_token_logps_and_entropies(
                    trainer.model,
                    torch.cat([data.prompts[cut], data.replies[cut]], 1),
                    torch.cat([data.prompt_mask[cut], mask], 1),
                    REPLY,
                )[0]
        inputs["old_logps"] = (before * mask).sum(1)
        share = trainer.compute_loss(trainer.model, inputs) / accumulation
        share.backward()
        loss += share.item()
    return loss, {name: p.grad for name, p in trainer.model.named_parameters()}
