"""Hostile reward code, in a module that workers import, and scorers that share one pool."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from trainer.config import Scoring
from trainer.rewards.base import Reward
from trainer.scoring import Scorer
from trainer.types import Group, Prompt, Rollout, Span

CODE = '''
import ctypes, os, random, re, sys, time
from trainer.errors import MissingService
from trainer.rewards.base import IsolatedReward, PointwiseReward, Reward
from trainer.types import Score


class Hostile(PointwiseReward):
    """Does what the reply says."""

    def grade(self, rollout, prompt):
        match rollout.reply:
            case "raise": raise ValueError("bad\\nanswer")
            case "sleep": time.sleep(1000)
            case "nap": time.sleep(0.2)
            case "loop":
                while True: pass
            case "regex": return re.match(r"(a+)+$", "a" * 64 + "b") is None
            case "nan": return float("nan")
            case "inf": return Score(1.0, parts={"x": float("inf")})
            case "exit": sys.exit(3)
            case "quit": os._exit(7)
            case "segfault": ctypes.string_at(0)
            case "memory": raise MemoryError
            case "deep": return self.grade(rollout, prompt)
            case "text": return "good"
            case "unpicklable": return lambda: 1
            case "huge": return Score(1.0, parts={f"{i:0500}": 1.0 for i in range(80000)})
            case "print":
                print("x" * 100_000); os.write(1, b"y" * 1000); sys.stdout.flush()
            case "stdin": return float(sys.stdin.read() == "")
            case "random": return random.random()
            case "torch": return float("torch" in sys.modules)
            case "pid": return float(os.getpid())
            case "alarm":
                import signal
                signal.alarm(1)
            case "child":
                import subprocess
                child = subprocess.Popen(["sleep", "1000"])
                open(prompt.meta["file"], "w").write(str(child.pid))
                time.sleep(1000)
            case "touch": open(prompt.meta["file"], "w").close()
            case "weird": raise Weird
        return 1.0


class Weird(BaseException):
    def __str__(self):
        raise RuntimeError


class WrongLength(IsolatedReward):
    def grade_group(self, group, call):
        return [1.0]


class Steps(IsolatedReward):
    """The step, of rollouts that are graded one by one or all together."""

    together: bool = False

    def grade_group(self, group, call):
        return [float(call.step)] * len(group.rollouts)

    def alone(self, prompt):
        return [] if self.together else [self]


class Logs(IsolatedReward):
    def grade_group(self, group, call):
        call.metrics["seen"] = len(group.rollouts)
        return [1.0] * len(group.rollouts)


class Unloadable(PointwiseReward):
    def warm(self):
        os._exit(9)


class NeedsPackage(PointwiseReward):
    def warm(self):
        raise MissingService("needs sand: pip install sand")


class Shipped(PointwiseReward):
    """What a worker is given."""

    def grade(self, rollout, prompt):
        span, image = rollout.spans[-1], prompt.messages[0]["content"][0]
        return Score(1.0, parts={
            "inputs": len(span.inputs), "tokens": len(span.tokens), "meta": len(prompt.meta),
            "pixels": "image" in image, "width": image.get("size", [0])[0],
        })


class ShippedImages(Shipped):
    needs = frozenset({"images"})


class Other(Reward):
    """Runs on the event loop; does what `act` says."""

    act: str

    async def score(self, group, ctx):
        import asyncio
        n = len(group.rollouts)
        match self.act:
            case "raise": raise KeyError("answer")
            case "exit": sys.exit(1)
            case "sleep": await asyncio.sleep(1000)
            case "timeout": raise TimeoutError("the judge is slow")
            case "short": return [Score(1.0)]
            case "none": return None
            case "rng": return [Score(ctx.rng.random()) for _ in range(n)]
            case "steps": return [Score(ctx.step + ctx.total_steps) for _ in range(n)]
            case "bad_span": return [Score(1.0, spans={5: 1.0})] * n
            case "bad_tokens": return [Score(1.0, tokens={1: [1.0]})] * n
            case "status": return [Score(1.0, status="raised", reason="said so")] * n
            case "turns": return [Score(spans={1: 0.5})] * n
            case "logprobs": return [Score(sum((await ctx.logprobs([([1, 2, 3], {})]))[0]))] * n
            case "reference": await ctx.logprobs([([1], {})], model="reference")
            case "stranger": await ctx.logprobs([([1], {})], model="stranger")
            case "embed": await ctx.embed(["a"])
            case "wait" | "wait_then_sleep":
                with ctx.waiting():
                    await asyncio.sleep(0.4)
                await asyncio.sleep(1000 if self.act == "wait_then_sleep" else 0)
                return [Score(1.0)] * n
            case "continue":
                texts = [await ctx.continue_([1], {}, max_tokens=4) for _ in range(n)]
                return [Score(float(len(t)), parts={t: 1.0}) for t in texts]
            case "patient":
                for _ in range(3):
                    await ctx.score(Hostile(), group)
                return [Score(1.0)] * n
'''


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module above. Workers get `sys.path` when they start, so it comes first."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "hostile_rewards.py").write_text(CODE)
    sys.path.insert(0, str(folder))
    import hostile_rewards

    yield hostile_rewards
    sys.path.remove(str(folder))
    del sys.modules["hostile_rewards"]


@pytest.fixture
def make_replies() -> Callable[..., Group]:
    """`make_replies(["4", "5"], answer="4", serial=0)`: one token per character."""

    def make(replies: list[str], **prompt: Any) -> Group:
        rollouts = []
        for reply in replies:
            n = len(reply)
            question = Span(None, "user", "data", "q", [1], [False], [0.0], [-1])
            answer = Span(0, "assistant", "policy", reply, [7] * n, [True] * n, [0.0] * n, [0] * n)
            rollouts.append(Rollout(spans=[question, answer]))
        return Group(Prompt("p0", ({"role": "user", "content": "q"},), **prompt), rollouts)

    return make


@pytest.fixture
def open_scorer(hostile: Any) -> Callable[..., Any]:
    """`async with open_scorer("text/exact", deadline=0.5) as scorer`; a budget that never stops."""

    @contextlib.asynccontextmanager
    async def opened(
        reward: Any,
        *,
        engine: Any = None,
        renderer: Any = None,
        log: Path | None = None,
        **config: Any,
    ) -> AsyncIterator[Scorer]:
        settings = Scoring(**({"deadline": 5.0, "workers": 1, "fault_budget": 1.0} | config))
        spec = TypeAdapter(Reward).validate_python(reward)
        services = {"engine": engine, "renderer": renderer, "log": log}
        async with Scorer.open(spec, settings, seed=11, total_steps=9, **services) as scorer:
            yield scorer

    return opened
