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
        report = learner.update(learner.advantage(our_batch(data, old=old)), 1)
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
}


@pytest.mark.parametrize("kl", ["no_kl", "k3", "corrected_k3"])
@pytest.mark.parametrize("old", [False, True], ids=["on_policy", "second_update"])
@pytest.mark.parametrize("name", list(CASES))
async def test_loss_and_gradients_equal_trls(
    data: Data, tmp_path: Path, name: str, old: bool, kl: str
) -> None:
    """With `old`, ratios are far from 1 and many actions are clipped on either side."""
    advantage, loss, micro_rows, options = CASES[name]
    corrected = kl == "corrected_k3"
    beta = 0.0 if kl == "no_kl" else BETA
    term = {"type": "kl", "estimator": "k3", "coef": beta, "off_policy_correction": corrected}
    report, gradients = await ours(
        data,
        tmp_path,
        old=old,
        advantage=advantage,
        loss={"type": "ppo_clip", **loss},
        modifiers=[term] if beta else [],
    )
    their_loss, expected = theirs(
        data,
        tmp_path,
        old=old,
        micro_rows=micro_rows,
        loss_type=name,
        beta=beta,
        use_bias_correction_kl=corrected,
        **options,
    )
    assert report["train/loss"] == pytest.approx(their_loss, rel=1e-5, abs=1e-6)
    assert gradients.keys() == expected.keys()
    largest = max(g.abs().max().item() for g in expected.values())
    for parameter, gradient in expected.items():
        torch.testing.assert_close(
            gradients[parameter], gradient, rtol=1e-5, atol=1e-5 * largest, msg=parameter
        )
    if old:
        assert report["train/clip_high"] > 0
        assert report["train/clip_low"] > 0
