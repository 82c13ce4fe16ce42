"""Judges on a vLLM that they start: the tiny model knows sums, so its verdicts are known too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest_asyncio
from pydantic import TypeAdapter

from trainer.config import Scoring
from trainer.context import Context
from trainer.models.pretrained import Pretrained
from trainer.rewards.base import Reward
from trainer.scoring import Scorer
from trainer.types import Group, Prompt, Rollout, ScoreStatus, Span

MODEL = Path(__file__).parents[3] / "configs/model/tiny_text"
SUMS = ["4+5+6=", "1+2+3=", "2+2+2="]


def reward_of(url: str | None = None, **fields: Any) -> Reward:
    start = {"model": str(MODEL), "max_model_len": 256, "max_num_seqs": 8}
    source = {"start": start} if url is None else {"urls": [url], "model": "policy"}
    # <answer> is a special token of this model
    server = source | {"max_tokens": 60, "extra": {"skip_special_tokens": False}}
    verdict = {"key": "answer", "high": 1000, "rescale": False}
    spec = {"type": "judge/pointwise", "rubric": "{answer}", "verdict": verdict}
    return TypeAdapter(Reward).validate_python(spec | fields | {"server": server})


def group_of(*replies: str) -> Group:
    rollouts = [
        Rollout([Span(None, "assistant", "policy", reply, [], [], [], [])]) for reply in replies
    ]
    return Group(Prompt("p", ({"role": "user", "content": "q"},)), rollouts)


async def scores_of(reward: Reward, *replies: str):
    async with Scorer.open(reward, Scoring(workers=1), seed=0, total_steps=1) as scorer:
        return await scorer.score_group(group_of(*replies), step=0)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def started(tmp_path_factory):
    """A reward whose server runs."""
    model = Pretrained(path=str(MODEL))
    folder = tmp_path_factory.mktemp("judged")
    context = Context(folder, 0, 10, "cpu", 0, 1, model, model.renderer())
    reward = reward_of()
    before = set(psutil.Process().children(recursive=True))
    async with reward.open(context):
        ours = set(psutil.Process().children(recursive=True)) - before
        assert ours
        yield reward, folder
    _, alive = psutil.wait_procs(ours, timeout=60)  # killed, but a busy machine takes its time
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


async def test_verdicts_of_a_real_model(started):
    reward, folder = started
    scores = await scores_of(reward, *SUMS, "Solution")
    assert [s.status for s in scores] == [ScoreStatus.OK] * 4
    assert [s.value for s in scores] == [15.0, 6.0, 6.0, 0.0]
    assert scores[3].parts == {"guarded": 1.0}
    assert list((folder / "judge").glob("server-*.log"))


async def test_the_server_serves_others_too(started):
    """By its URL, as a server that somebody else started."""
    _, folder = started
    (log,) = (folder / "judge").glob("server-*.log")
    url = f"http://127.0.0.1:{log.stem.removeprefix('server-')}/v1"
    (score,) = await scores_of(reward_of(url), SUMS[0])
    assert score.value == 15.0
    (lost,) = await scores_of(reward_of(url, verdict={"key": "nothing"}), SUMS[0])
    assert (lost.value, lost.status) == (None, ScoreStatus.RAISED)
    long = "+".join(["1"] * 400)
    (refused,) = await scores_of(reward_of(url), long)
    assert (refused.value, refused.status) == (None, ScoreStatus.RAISED)
    assert "the server refuses: status 400" in refused.reason
