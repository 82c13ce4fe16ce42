"""A reward model that vLLM serves, against the same one beside the policy."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio
import torch

from trainer.context import Context
from trainer.models.pretrained import Pretrained
from trainer.models.tiny_text import TinyText
from trainer.ops.value_heads import save_head
from trainer.rewards.model.reward_model import RewardModel
from trainer.types import Group, Prompt, Rollout, ScoreStatus, Span

SMALL = TinyText(hidden=64, layers=2, heads=2, intermediate=64)
REPLIES = ["3", "<answer>4</answer>", "<think>1+2=3</think><answer>3</answer>", "no"]
WAITING = SimpleNamespace(waiting=nullcontext)


def group_of(renderer, *replies: str) -> Group:
    question, rollouts = renderer.encode("1+2="), []
    for reply in replies:
        tokens = [*renderer.encode(reply), renderer.stop_ids[0]]
        n = len(tokens)
        asked = Span(None, "user", "data", "1+2=", question, [False] * 4, [0.0] * 4, [-1] * 4)
        own = Span(0, "assistant", "policy", reply, tokens, [True] * n, [0.0] * n, [0] * n)
        rollouts.append(Rollout([asked, own]))
    return Group(Prompt("p", ({"role": "user", "content": "1+2="},)), rollouts)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    """As a stage exports it; vLLM is given a checkpoint for sequence classification made of it."""
    folder = tmp_path_factory.mktemp("classifier")
    SMALL.save_assets(folder)
    SMALL.load(dtype="float32", attn_implementation="eager").save_pretrained(folder)
    torch.manual_seed(5)
    save_head({"weight": torch.randn(1, 64) / 8, "bias": torch.tensor([0.75])}, folder)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def started(classifier, tmp_path_factory):
    """(a reward whose server runs, its context, the server's URL)."""
    folder = tmp_path_factory.mktemp("served")
    context = Context(folder, 0, 10, "cpu", 0, 1, SMALL, SMALL.renderer())
    start = {"model": str(classifier), "max_model_len": 128, "max_num_seqs": 8, "dtype": "float32"}
    reward = RewardModel(server={"start": start})  # type: ignore[arg-type]
    async with reward.open(context):
        (log,) = (folder / "judge").glob("server-*.log")
        yield reward, context, f"http://127.0.0.1:{log.stem.removeprefix('server-')}"


@pytest.mark.parametrize("reads", ["rollout", "text"])
async def test_it_agrees_with_the_model_beside_the_policy(started, classifier, reads):
    served, context, url = started
    group = group_of(context.renderer, *REPLIES)
    if reads == "text":
        served = RewardModel(server={"urls": [url], "model": "policy"}, reads="text")  # type: ignore[arg-type]
    beside = RewardModel(model=Pretrained(path=str(classifier)), reads=reads)
    async with beside.open(context):
        expected = [s.value for s in await beside.score(group, WAITING)]  # type: ignore[arg-type]
    if reads == "text":
        async with served.open(context):
            found = await served.score(group, WAITING)  # type: ignore[arg-type]
    else:
        found = await served.score(group, WAITING)
    assert [s.value for s in found] == pytest.approx(expected, abs=1e-4)
    assert len({round(value, 3) for value in expected if value is not None}) == len(REPLIES)


async def test_an_answer_that_is_too_long_is_the_fault_of_that_answer(started):
    served, context, _ = started
    found = await served.score(group_of(context.renderer, "3", "7" * 200), WAITING)
    assert found[0].value is not None
    assert (found[1].value, found[1].status) == (None, ScoreStatus.RAISED)
    assert "the server refuses: status 400" in found[1].reason
