"""Asynchronous training through the one loop: staleness, overlap, and lag 0 is synchronous."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import PrivateAttr

from trainer.checkpoint import load_tensors
from trainer.collate import collate
from trainer.config import Recipe
from trainer.engines.base import Completion, Request
from trainer.engines.hf import Hf
from trainer.errors import EngineError
from trainer.learner import Learner
from trainer.loop import train
from trainer.monitors.base import Monitor
from trainer.run import Run
from trainer.types import Group

pytestmark = pytest.mark.slow

PATIENCE = 60.0


class Recorder(Monitor):
    """Keeps what was trained, with the version of every token."""

    _seen: list[tuple[int, list[Group]]] = PrivateAttr(default_factory=list)
    _reports: list[dict[str, Any]] = PrivateAttr(default_factory=list)

    def rollouts(self, step: int, groups: list[Group]) -> None:
        self._seen.append((step, groups))

    def log(self, step: int, report: dict[str, Any], timing: dict[str, float]) -> None:
        self._reports.append(report)

    @property
    def seen(self) -> list[tuple[int, list[Group]]]:
        return self._seen

    @property
    def reports(self) -> list[dict[str, Any]]:
        return self._reports

    def lags(self) -> list[list[int]]:
        """Per step, of every sampled token: versions between it and the weights it trained."""
        return [
            [step - 1 - v for g in groups for r in g.rollouts for s in r.spans for v in s.version
             if v >= 0]
            for step, groups in self._seen
        ]  # fmt: skip


@pytest.fixture
def make_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    monkeypatch.syspath_prepend(Path(__file__).parent)

    def make(lag: int, **fields: Any) -> Recipe:
        rollouts = {"groups_per_step": 2, "group_size": 4, "sampling": {"max_tokens": 6}}
        return Recipe(
            **{
                "name": f"lag_{lag}",
                "output": tmp_path / "runs",
                "steps": 6,
                "threads": 1,
                "model": {"type": "tiny_text", "hidden": 24, "intermediate": 32, "layers": 1},
                "prompts": {"type": "synthetic/arithmetic", "holdout": 2},
                "reward": {"function": "light_rewards:many_values"},
                "learner": {"lr": 1e-3},
                "monitors": (Recorder(), "jsonl"),
                **fields,
                "rollouts": {**rollouts, "max_lag": lag, **fields.get("rollouts", {})},
            }
        )

    return make


async def trained(recipe: Recipe) -> Recorder:
    await train(recipe, fresh=True)
    return recipe.monitors[0]


@pytest.mark.parametrize("lag", [0, 1, 3])
async def test_no_token_is_older_than_the_bound(make_recipe, lag: int) -> None:
    recorder = await trained(make_recipe(lag, steps=8, modifiers=[{"type": "tis"}]))
    lags = recorder.lags()
    assert len(lags) == 8
    assert min(map(min, lags)) >= 0
    assert max(map(max, lags)) == lag  # reached, so the bound is not a matter of luck
    serials = [g.prompt.serial for _, groups in recorder.seen for g in groups]
    assert serials == list(range(16))
    for (step, _), report, own in zip(recorder.seen, recorder.reports, lags, strict=True):
        assert report["rollout/lag_max"] == max(own) <= min(lag, step - 1)
        gaps = report["train/logprob_gap_mean"], report["train/logprob_gap_max"]
        assert all(gap > 1e-5 for gap in gaps) == (max(own) > 0), "stale tokens have a gap"


@pytest.mark.parametrize("lag", [1, 3])
async def test_dropped_groups_do_not_stretch_the_bound(make_recipe, lag: int) -> None:
    """The reward is constant for half of the prompts, whose slots are used again at once."""
    recorder = await trained(
        make_recipe(
            lag,
            steps=8,
            reward={"function": "light_rewards:half_constant"},
            rollouts={"filters": ["zero_variance"], "groups_per_step": 2},
        )
    )
    assert max(map(max, recorder.lags())) <= lag
    assert sum(report["group/dropped"] for report in recorder.reports) > 0


class Gated(Hf):
    """Answers the prompts of step 3 only once the update of step 2 has begun."""

    _begun: Any = PrivateAttr(default_factory=threading.Event)
    _done: Any = PrivateAttr(default_factory=threading.Event)

    @property
    def begun(self) -> threading.Event:
        return self._begun

    @property
    def done(self) -> threading.Event:
        """A reply to a prompt of step 3 is finished."""
        return self._done

    async def sample(self, request: Request) -> Completion:
        late = request.order[0] >= 4  # serial; two prompts a step
        while late and not self._begun.is_set():
            await asyncio.sleep(0.005)
        completion = await super().sample(request)
        if late:
            self._done.set()
        return completion


@pytest.mark.parametrize("lag", [0, 1])
async def test_replies_are_finished_while_the_update_runs(make_recipe, monkeypatch, lag) -> None:
    """The update of step 2 waits for a reply of step 3. At lag 0 that one has not even begun."""
    engine, update = Gated(), Learner.update
    overlapped = []

    def held(self: Learner, batch: Any, step: int) -> dict[str, float]:
        if step == 2:
            engine.begun.set()
            overlapped.append(engine.done.wait(PATIENCE if lag else 0.5))
        return update(self, batch, step)

    monkeypatch.setattr(Learner, "update", held)
    recipe = make_recipe(lag, steps=3, evaluation={"limit": 1})
    recipe = recipe.model_copy(update={"engine": engine})
    await train(recipe, fresh=True)
    assert overlapped == [lag > 0]


async def test_lag_0_gives_the_numbers_of_a_plain_loop(make_recipe) -> None:
    """The reference has no collectors, no slots and no tasks: one thing after the other."""
    whole = make_recipe(0, learner={"lr": 1e-3, "minibatches": 2}, evaluation={"limit": 2})
    recorder = await trained(whole)
    recipe = make_recipe(0, name="plain", learner={"lr": 1e-3, "minibatches": 2})
    losses = []
    async with Run.open(recipe, fresh=True) as run:
        await run.publish()
        for _ in run.steps():
            prompts = [run.next_prompt() for _ in range(2)]
            play = recipe.rollouts.agent.play
            arguments = run.context.renderer, recipe.rollouts.sampling
            groups = await asyncio.gather(
                *(play(p, recipe.engine, *arguments, group_size=4, seed=0) for p in prompts)
            )
            for group in groups:
                await run.scorer.score_group(group, run.step)
            report = await run.update(await run.annotate(collate(groups)))
            losses.append({k: v for k, v in report.items() if k.startswith("train/")})
            await run.publish()
        weights = {n: p.detach().clone() for n, p in recipe.policy.backbone.named_parameters()}
    for expected, report in zip(losses, recorder.reports, strict=True):
        assert {name: report[name] for name in expected} == expected
    saved = load_tensors(
        whole.output / whole.name / "checkpoints" / "step_000006" / "policy.safetensors"
    )
    own = {name.partition("backbone.")[2] or name: tensor for name, tensor in saved.items()}
    assert own.keys() == weights.keys()
    for name, tensor in own.items():
        assert torch.equal(tensor, weights[name]), name


class Ordered(Hf):
    """Notes what it is asked to do."""

    _asked: list[str] = PrivateAttr(default_factory=list)

    async def sample(self, request: Request) -> Completion:
        self._asked.append("sample")
        return await super().sample(request)

    async def load(self, weights: Any, version: int) -> None:
        self._asked.append(f"load {version}")
        await super().load(weights, version)


async def test_the_first_thing_after_start_and_resume_is_a_sync(make_recipe) -> None:
    recipe = make_recipe(1, steps=2, checkpoint={"every": 1})
    for steps, fresh, version in ((2, True, 0), (3, False, 2)):
        engine = Ordered()
        again = recipe.model_copy(update={"engine": engine, "steps": steps})
        await train(again, fresh=fresh)
        assert engine._asked[0] == f"load {version}"
        assert "sample" in engine._asked


class Liar(Hf):
    """A worker that lost the last two sets of weights and does not know."""

    async def sample(self, request: Request) -> Completion:
        done = await super().sample(request)
        return Completion(done.tokens, done.logprobs, [v - 2 for v in done.version], done.finish)


async def test_a_worker_with_old_weights_stops_the_run(make_recipe) -> None:
    recipe = make_recipe(1).model_copy(update={"engine": Liar()})
    with pytest.raises(ExceptionGroup) as caught:
        await train(recipe, fresh=True)
    assert caught.group_contains(EngineError, match="a worker did not take the last weights")


async def test_the_recipe_of_a_stale_run_is_in_its_metrics(make_recipe) -> None:
    """Bypass: with nothing else to correct it, the ratio is against the engine's log-probs."""
    recipe = make_recipe(1)
    assert recipe.old_logprobs == "sampled"
    await trained(recipe)
    rows = (recipe.output / recipe.name / "metrics.jsonl").read_text().splitlines()
    ratios = [abs(json.loads(row)["train/ratio"] - 1) for row in rows]
    assert ratios[0] < 1e-6 < max(ratios)
