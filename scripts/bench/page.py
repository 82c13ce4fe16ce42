"""How large and how slow the page of a long run is: `python scripts/bench/page.py FOLDER`.

Writes a run of invented rollouts to FOLDER through the monitors that a training run uses, with
real pictures, rewards, faults and GRPO advantages, then its page; prints seconds and megabytes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from pathlib import Path
from types import SimpleNamespace

from trainer.advantages.grpo import Grpo
from trainer.collate import collate
from trainer.config import Recipe
from trainer.context import Context
from trainer.monitors.jsonl import Jsonl
from trainer.monitors.traces import Traces
from trainer.ops.boxes import iou, is_valid
from trainer.page.build import write_page
from trainer.prompts.synthetic.shapes import Shapes
from trainer.run_folder import RESOLVED
from trainer.summarize import Gathered, lean, summarize
from trainer.tracing import Tracer
from trainer.types import Group, Prompt, Rollout, Score, ScoreStatus, Span, Status
from trainer.yaml import dump_recipe

SYLLABLES = [a + b for a in ("ba", "co", "di", "fu", "ga", "le", "mo", "ni") for b in "nrstlm"]
PIECES = ["", "<answer>", "</answer>", "[", "]", ",", "\n", ". ", *map(str, range(15))]
FIRST_WORD = len(PIECES)
PIECES += [f"{a}{b} " for a in SYLLABLES for b in SYLLABLES[:12]]
AT = {piece: at for at, piece in enumerate(PIECES)}
STOP = 0


def decode(tokens: list[int]) -> str:
    return "".join(PIECES[token] for token in tokens)


def invented(prompt: Prompt, skill: float, words: int, rng: random.Random) -> Rollout:
    """An answer that comes nearer to the right box the larger `skill` is."""
    reach = round(6 * (1 - skill)) + 1
    box = [min(14, max(0, v + rng.randint(-reach, reach))) for v in prompt.answer]
    tokens = [rng.randrange(FIRST_WORD, len(PIECES)) for _ in range(rng.randint(words // 2, words))]
    for at in range(12, len(tokens), 17):
        tokens[at] = AT[". "]
    fate = rng.random()
    status = Status.TRUNCATED if fate < 0.02 else Status.OK
    if status is Status.OK:
        numbers = [token for v in box for token in (AT[str(v)], AT[","])][:-1]
        tokens += [AT["\n"], AT["<answer>"], AT["["], *numbers, AT["]"], AT["</answer>"], STOP]
    n = len(tokens)
    logprobs = [-rng.expovariate(2.5) for _ in range(n)]
    root = Span(None, "user", "data", "", [1] * 8, [False] * 8, [0.0] * 8, [-1] * 8)
    reply = Span(0, "assistant", "policy", decode(tokens), tokens, [True] * n, logprobs, [0] * n)
    if fate > 0.998:
        score = Score.fault(ScoreStatus.RAISED, "ValueError: invented, to have a fault to show")
    elif status is not Status.OK or not is_valid((box[0], box[1], box[2], box[3])):
        parts = {"format": float(status is Status.OK), "iou": 0.0}
        score = Score(0.1 * (parts["format"] or 0), parts=parts, status=ScoreStatus.UNPARSABLE)
    else:
        overlap = iou((box[0], box[1], box[2], box[3]), prompt.answer)
        score = Score(0.1 + 0.9 * overlap, parts={"format": 1.0, "iou": overlap})
    return Rollout([root, reply], status=status, score=score)


async def write(folder: Path, rollouts: int, words: int, seed: int = 0) -> None:
    """A run folder with about `rollouts` rollouts, 16 groups of 8 a step."""
    rng = random.Random(seed)
    steps = max(1, rollouts // 128)
    reward = {"type": "vision/iou", "space": "grid", "grid": 14}
    recipe = Recipe(
        name="invented",
        description="invented rollouts, to see how the page of a long run feels",
        steps=steps,
        model="tiny_vision",
        policy="vision_lm",
        prompts="synthetic/shapes",
        reward=reward,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESOLVED).write_text(dump_recipe(recipe))
    stream = Shapes().stream(seed)
    monitors = Jsonl(), Traces()
    tracer = Tracer(monitors[1].tracing, SimpleNamespace(decode=decode))
    context = Context(folder, seed, steps, "cpu", 0, 1, recipe.model, None)
    async with monitors[0].open(context, {}), monitors[1].open(context, {}):
        for step in range(1, steps + 1):
            skill = min(0.9, step / steps)
            groups = [
                Group(prompt, [invented(prompt, skill, words, rng) for _ in range(8)])
                for prompt in (next(stream) for _ in range(16))
            ]
            batch = collate(groups)
            batch = batch.with_(advantages=Grpo()(batch))
            traces = tracer.trace(step, groups, [], batch)
            gathered = Gathered(lean(groups))
            monitors[1].traces(step, traces)
            monitors[0].rollouts(step, gathered.played)
            report = summarize(gathered, version=0) | {"train/entropy": 2 - skill}
            monitors[0].log(step, report, {"time/train": 1.0, "time/step": 1.0})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rollouts", type=int, default=50_000)
    parser.add_argument("--words", type=int, default=120, help="most words of an answer")
    arguments = parser.parse_args()
    began = time.perf_counter()
    asyncio.run(write(arguments.folder, arguments.rollouts, arguments.words))
    logged = time.perf_counter()
    page = write_page(arguments.folder)
    done = time.perf_counter()
    sizes = {path.name: path.stat().st_size / 1e6 for path in arguments.folder.glob("*.*")}
    print(f"logged in {logged - began:.1f} s, page in {done - logged:.1f} s: {page}")
    print(", ".join(f"{name} {size:.1f} MB" for name, size in sorted(sizes.items())))


if __name__ == "__main__":
    main()
