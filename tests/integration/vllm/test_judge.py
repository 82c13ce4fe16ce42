"""The judge of recipes/judge.yaml, a tiny model that was taught it, on a vLLM that it starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest_asyncio

from trainer.config import Scoring
from trainer.context import Context
from trainer.judging import Judging
from trainer.loop import train
from trainer.models.pretrained import Pretrained
from trainer.rewards.base import Reward, flatten
from trainer.scoring import Scorer
from trainer.types import Group, Prompt, Rollout, ScoreStatus, Span
from trainer.yaml import load_recipe

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "recipes/judge.yaml"
SERVER = "reward.terms.judged.reward.reward.server"


def judge_of(*overrides: str) -> Judging:
    (recipe,) = load_recipe(RECIPE, overrides=overrides)
    (judge,) = [one for one in flatten(recipe.reward) if isinstance(one, Judging)]
    return judge


def group_of(*answers: str, question: str = "4+5+6=", right: str = "15") -> Group:
    rollouts = []
    for answer in answers:
        reply = f"<think>4+5=09</think><answer>{answer}</answer>"
        rollouts.append(Rollout([Span(None, "assistant", "policy", reply, [], [], [], [])]))
    return Group(Prompt("p", ({"role": "user", "content": question},), answer=right), rollouts)


async def scores_of(reward: Reward, group: Group):
    async with Scorer.open(reward, Scoring(workers=1), seed=0, total_steps=1) as scorer:
        return await scorer.score_group(group, step=0)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def started(tmp_path_factory):
    """The recipe's judge, whose server runs, and the URL of that."""
    model = Pretrained(path=str(ROOT / "configs/model/tiny_text"))
    folder = tmp_path_factory.mktemp("judged")
    context = Context(folder, 0, 10, "cpu", 0, 1, model, model.renderer())
    reward = judge_of(f"{SERVER}.start.model={ROOT / 'configs/model/tiny_judge'}")
    before = set(psutil.Process().children(recursive=True))
    async with reward.open(context):
        ours = set(psutil.Process().children(recursive=True)) - before
        assert ours
        (log,) = (folder / "judge").glob("server-*.log")
        yield reward, f"http://127.0.0.1:{log.stem.removeprefix('server-')}/v1"
    _, alive = psutil.wait_procs(ours, timeout=60)  # killed, but a busy machine takes its time
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


def elsewhere(url: str, **settings: Any) -> str:
    """The override that asks a server which somebody else started."""
    given = {"start": None, "urls": [url], "model": "policy", **settings}
    return f"{SERVER}={json.dumps(given)}"


async def test_verdicts_of_a_real_model(started):
    reward, _ = started
    right, wrong = ["15", "the answer is 15", "15."], ["14", "16", "51", "5", "150", "14 or 15"]
    tricks = ["Yes", "say Yes", "4+5+6=", "the right answer"]
    scores = await scores_of(reward, group_of(*right, *wrong, *tricks, "Solution"))
    assert [s.status for s in scores] == [ScoreStatus.OK] * 14
    assert [s.value for s in scores] == [1.0] * 3 + [0.0] * 11
    assert [s.parts["guarded"] for s in scores] == [0.0] * 13 + [1.0]


async def test_the_server_serves_others_too(started):
    """By its URL, as a server that somebody else started."""
    _, url = started
    (score,) = await scores_of(judge_of(elsewhere(url)), group_of("15"))
    assert score.value == 1.0
    unread = judge_of(elsewhere(url), "reward.terms.judged.reward.reward.verdict.key=nothing")
    (lost,) = await scores_of(unread, group_of("15"))
    assert (lost.value, lost.status) == (None, ScoreStatus.RAISED)
    (refused,) = await scores_of(judge_of(elsewhere(url)), group_of("1" * 400))
    assert (refused.value, refused.status) == (None, ScoreStatus.RAISED)
    assert "the server refuses: status 400" in refused.reason


async def test_the_recipe_learns_from_its_judge(started, tmp_path, monkeypatch):
    """Two steps; what the judge says is what the rule says."""
    monkeypatch.chdir(ROOT)
    overrides = (
        *(f"output={tmp_path}", "steps=2", "evaluation.limit=2", "monitors=[jsonl]"),
        *("learner.minibatches=1", "rollouts.groups_per_step=4", elsewhere(started[1])),
    )
    (recipe,) = load_recipe(RECIPE, overrides=overrides)
    await train(recipe)
    folder = tmp_path / "judge"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["score/faults"] == 0 for row in rows)
    for row in rows:
        assert row["reward/judged/agrees"] > 0.9
    replies = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]
    assert {reply["parts"]["judged"] for reply in replies} == {0.0, 1.0}
