"""What hostile code does in a worker happens to its own sample alone."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from trainer.errors import MissingService
from trainer.types import ScoreStatus

OK, RAISED, CRASHED = ScoreStatus.OK, ScoreStatus.RAISED, ScoreStatus.CRASHED
TIMEOUT, NOT_FINITE = ScoreStatus.TIMEOUT, ScoreStatus.NOT_FINITE


def alive(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


async def test_each_fault_is_one_sample(hostile, open_scorer, make_replies, tmp_path):
    expected = {
        "raise": (RAISED, "ValueError: bad answer"),
        "nan": (NOT_FINITE, "the score is nan"),
        "inf": (NOT_FINITE, "parts['x'] is inf"),
        "exit": (CRASHED, "SystemExit: 3"),
        "quit": (CRASHED, "the worker exited with code 7 while grading"),
        "segfault": (CRASHED, "the worker was ended by SIGSEGV while grading"),
        "memory": (RAISED, "MemoryError"),
        "deep": (RAISED, "RecursionError: maximum recursion depth exceeded"),
        "text": (RAISED, "TypeError: the score is str 'good', expected a number or None"),
        "unpicklable": (RAISED, "TypeError: the score is function"),
        "huge": (RAISED, "returned "),
        "weird": (RAISED, "Weird: (its message cannot be shown)"),
        "print": (OK, ""),
        "stdin": (OK, ""),
        "torch": (OK, ""),
    }
    log = tmp_path / "reward.log"
    async with open_scorer(hostile.Hostile(), log=log, deadline=20) as scorer:
        group = make_replies([*expected, "fine"])
        scores = await scorer.score_group(group, step=0)
    assert [r.score for r in group.rollouts] == scores
    for (reply, (status, reason)), score in zip(expected.items(), scores, strict=False):
        assert score.status is status, (reply, score)
        assert score.reason.startswith(reason), (reply, score)
        assert (score.value is None) == (status is not OK), reply
    values = dict(zip(expected, [s.value for s in scores], strict=False))
    assert (scores[-1].value, values["print"], values["stdin"]) == (1.0, 1.0, 1.0)
    assert values["torch"] == 0.0, "a worker must not import torch"
    assert sum(score.status.is_fault for score in scores) == 12
    assert [score.status for score in scores].count(CRASHED) == 3
    assert log.stat().st_size >= 101_000, "what reward code prints goes to the log"


async def test_deadline_kills_and_the_rest_goes_on(hostile, open_scorer, make_replies):
    async with open_scorer(hostile.Hostile(), deadline=1.0, workers=2) as scorer:
        pids = await scorer.score_group(make_replies(["pid"] * 8), step=0)
        start = time.monotonic()
        group = make_replies(["sleep", "fine", "loop", "fine", "regex", "fine", "pid"])
        scores = await scorer.score_group(group, step=0)
        elapsed = time.monotonic() - start
    assert [s.value for s in scores[:6]] == [None, 1.0, None, 1.0, None, 1.0]
    assert [s.status for s in scores[::2][:3]] == [TIMEOUT] * 3
    assert scores[0].reason == "grading took more than 1 s"
    assert elapsed < 15
    assert scores[6].value not in {s.value for s in pids}, "a fresh worker took over"


async def test_event_loop_is_free_and_groups_overlap(hostile, open_scorer, make_replies):
    ticks = []

    async def heartbeat():
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    async with open_scorer(hostile.Hostile(), deadline=1.0, workers=2) as scorer:
        await scorer.score_group(make_replies(["fine", "fine"]), step=0)
        beating = asyncio.create_task(heartbeat())
        groups = [make_replies(["loop"]), *(make_replies(["fine"] * 4) for _ in range(8))]
        scores = await asyncio.gather(*(scorer.score_group(g, step=0) for g in groups))
        beating.cancel()
    gaps = [b - a for a, b in itertools.pairwise(ticks)]
    assert len(ticks) > 10
    assert max(gaps) < 0.8
    assert [s.value for s in scores[0]] == [None]
    assert all(s.value == 1.0 for group in scores[1:] for s in group)


async def test_deadline_kills_what_the_worker_started(hostile, open_scorer, make_replies, tmp_path):
    file = tmp_path / "pid"
    async with open_scorer(hostile.Hostile(), deadline=1.0) as scorer:
        (score,) = await scorer.score_group(make_replies(["child"], meta={"file": str(file)}), 0)
    assert score.status is TIMEOUT
    assert wait_until(lambda: not alive(int(file.read_text())))


async def test_a_worker_killed_from_outside_is_replaced(hostile, open_scorer, make_replies):
    async with open_scorer(hostile.Hostile()) as scorer:
        (before,) = await scorer.score_group(make_replies(["pid"]), step=0)
        os.kill(int(before.value), signal.SIGKILL)
        (after,) = await scorer.score_group(make_replies(["pid"]), step=0)
        assert (after.status, after.value == before.value) == (OK, False)
    assert wait_until(lambda: not alive(int(after.value))), "closing ends the workers"


async def test_an_alarm_left_behind_does_not_hit_the_next_sample(
    hostile, open_scorer, make_replies
):
    async with open_scorer(hostile.Hostile()) as scorer:
        first, pid = await scorer.score_group(make_replies(["alarm", "pid"]), step=0)
        await asyncio.sleep(1.1)
        (again,) = await scorer.score_group(make_replies(["pid"]), step=0)
    assert (first.status, pid.value) == (OK, again.value)


async def test_cancelled_scoring_leaves_no_stale_answer(hostile, open_scorer, make_replies):
    async with open_scorer(hostile.Hostile()) as scorer:
        await scorer.score_group(make_replies(["fine"]), step=0)
        task = asyncio.create_task(scorer.score_group(make_replies(["sleep"]), step=0))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        scores = await scorer.score_group(make_replies(["nan", "fine"]), step=0)
    assert [s.status for s in scores] == [NOT_FINITE, OK]


async def test_whole_group_rewards_and_their_wrong_length(hostile, open_scorer, make_replies):
    async with open_scorer(hostile.WrongLength()) as scorer:
        scores = await scorer.score_group(make_replies(["a", "b", "c"]), step=0)
        (fine,) = await scorer.score_group(make_replies(["a"]), step=0)
    assert [s.status for s in scores] == [ScoreStatus.WRONG_LENGTH] * 3
    assert scores[0].reason == "returned 1 scores for 3 rollouts"
    assert fine.value == 1.0


async def test_a_reward_that_cannot_load(hostile, open_scorer, make_replies):
    async with open_scorer(hostile.Unloadable()) as scorer:
        (score,) = await scorer.score_group(make_replies(["a"]), step=0)
        assert score.status is CRASHED
        assert score.reason == "the worker exited with code 9 while loading the reward"
        with pytest.raises(MissingService, match="pip install sand"):
            await scorer.score_group(make_replies(["a"]), 0, reward=hostile.NeedsPackage())


async def test_grading_is_seeded_by_prompt_and_rollout(hostile, open_scorer, make_replies):
    runs = []
    for workers in (1, 2):
        async with open_scorer(hostile.Hostile(), workers=workers) as scorer:
            groups = [make_replies(["random"] * 2, serial=serial) for serial in (0, 1)]
            runs.append([s.value for g in groups for s in await scorer.score_group(g, step=0)])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 4


async def test_workers_get_no_tensors_and_images_only_on_request(
    hostile, open_scorer, make_replies
):
    image = Image.new("RGB", (30, 20))
    message = {"role": "user", "content": [{"type": "image", "image": image}]}
    for reward, pixels, columns in [(hostile.Shipped(), 0, 1), (hostile.ShippedImages(), 1, 3)]:
        group = make_replies(["ab"], meta={"images": [image], "raw": {"bytes": b"x"}, "level": 1})
        object.__setattr__(group.prompt, "messages", (message,))
        group.rollouts[0].spans[-1].inputs = {"pixel_values": object()}
        async with open_scorer(reward) as scorer:
            (score,) = await scorer.score_group(group, step=0)
        assert score.parts["inputs"] == 0
        assert score.parts["tokens"] == 2
        assert (score.parts["pixels"], score.parts["meta"]) == (pixels, columns)
        assert score.parts["width"] == (0 if pixels else 30)
        assert group.rollouts[0].spans[-1].inputs, "the rollout itself is left alone"


async def test_a_row_that_cannot_be_sent(hostile, open_scorer, make_replies):
    async with open_scorer(hostile.Hostile()) as scorer:
        (score,) = await scorer.score_group(make_replies(["a"], meta={"f": lambda: 1}), step=0)
        group = make_replies(["fine", "fine", "fine"])
        group.rollouts[1].artifacts["f"] = lambda: 1
        others = await scorer.score_group(group, step=0)
    assert score.status is RAISED
    assert score.reason.startswith("cannot be sent to a worker: ")
    assert [s.status for s in others] == [OK, RAISED, OK]


async def test_a_group_is_one_request(hostile, open_scorer, make_replies):
    """Each rollout still has its own deadline: together they take longer than one."""
    async with open_scorer(hostile.Hostile(), deadline=0.5) as scorer:
        scores = await scorer.score_group(make_replies(["nap"] * 4), step=0)
        naps = make_replies(["nap", "nap", "sleep", "nap"])
        others = await scorer.score_group(naps, step=0)
    assert [s.value for s in scores] == [1.0] * 4
    assert [s.status for s in others] == [OK, OK, TIMEOUT, OK]


PARENT = """
import asyncio, os, sys
sys.path[:0] = {paths}
import hostile_rewards
from trainer.config import Scoring
from trainer.scoring import Scorer
from trainer.types import Group, Prompt, Rollout, Span

def group(reply):
    span = Span(None, "assistant", "policy", reply, [], [], [], [])
    return Group(Prompt("p", ()), [Rollout([span])])

async def main():
    config = Scoring(workers=2, deadline=1000)
    async with Scorer.open(hostile_rewards.Hostile(), config, seed=0, total_steps=1) as scorer:
        print(*[worker.process.pid for worker in scorer.pool.workers], flush=True)
        await asyncio.gather(*(scorer.score_group(group("regex"), 0) for _ in range(2)))

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_die_with_a_killed_parent(hostile):
    """Also in the middle of a regular expression, which never lets another thread run."""
    paths = [str(Path(hostile.__file__).parent), str(Path(__file__).parents[3])]
    command = [sys.executable, "-c", PARENT.format(paths=paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert wait_until(lambda: all(busy(pid) for pid in pids), 30)
        parent.kill()
    assert len(pids) == 2
    assert wait_until(lambda: not any(map(alive, pids)))


def busy(pid: int) -> bool:
    """It has computed for a while: past its imports, in the regular expression."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") > 1.0
