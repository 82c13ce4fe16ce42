"""Runs of one recipe that differ in settings and seed, each in a process of its own.

A trial is an ordinary run: `cohort train` with the same words gives the same numbers, `cohort show`
reads its folder. What is finished is kept, what was cut off goes on after its newest checkpoint.
First stages that two trials have in common are run once: both go on from the same weights.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import ConfigError
from trainer.monitors.base import read_rows
from trainer.run_folder import RESOLVED, clear_folder, differences, folder_of
from trainer.stage_models import in_place
from trainer.yaml import load_recipe, read_yaml

if TYPE_CHECKING:
    from trainer.config import Recipe


@dataclass(frozen=True)
class Trial:
    """One arm with one seed."""

    path: Path
    arm: str
    seed: int
    words: tuple[str, ...]
    """Command line behind `cohort train PATH`."""
    recipes: tuple[Recipe, ...]
    """Its stages."""

    @property
    def name(self) -> str:
        return self.recipes[-1].name

    @property
    def folder(self) -> Path:
        """Of the last stage: what is measured."""
        return folder_of(self.recipes[-1])

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.recipes[-1].output / f"{self.name}.log"

    @property
    def total(self) -> int:
        """Steps of all stages."""
        return sum(recipe.steps for recipe in self.recipes)

    @property
    def done(self) -> int:
        """Steps logged so far, over all stages."""
        return sum(min(_logged(recipe), recipe.steps) for recipe in self.recipes)

    @property
    def finished(self) -> bool:
        """Its last stage is through, with the settings that the recipe has now."""
        last = self.recipes[-1]
        return _logged(last) >= last.steps and not self.changed()

    def changed(self) -> list[str]:
        """Settings in which what is on the disk is another run: `learner.lr: 0.1 -> 0.2`."""
        lines = []
        for index, recipe in enumerate(self.recipes):
            path = folder_of(recipe) / RESOLVED
            if path.is_file() and _logged(recipe):
                before, after = read_yaml(path), in_place(recipe).model_dump(mode="json")
                if index:  # its start weights are what the stage before exported
                    before, after = before | {"model": None}, after | {"model": None}
                lines += differences(before, after)
                for key in ("evaluation", "steps"):  # free in a run, but no longer comparable
                    if before[key] != after[key] and not (key == "steps" and _grows(before, after)):
                        lines.append(f"{key}: {before[key]!r} -> {after[key]!r}")
        return lines


def _grows(before: dict, after: dict) -> bool:
    falling = after["learner"].get("schedule", "constant") != "constant"
    return after["steps"] > before["steps"] and not falling


def _logged(recipe: Recipe) -> int:
    last = 0
    for row in read_rows(folder_of(recipe) / "metrics.jsonl"):
        last = row["step"]
    return last


def make_trial(
    path: Path,
    arm: str,
    seed: int,
    settings: Sequence[str],
    *,
    output: Path,
    scale: str | None = None,
) -> Trial:
    """The run of `settings` with `seed` in `output/ARM_seedN`. Raises `ConfigError` if the recipe
    does not take the settings."""
    name = f"{arm}_seed{seed}"
    words = [
        *settings,
        f"seed={seed}",
        f"name={name}",
        f"output={output}",
        "monitors=[jsonl]",
        *([f"scale={scale}"] if scale else []),
    ]
    return Trial(path, arm, seed, tuple(words), tuple(load_recipe(path, overrides=words)))


def refuse_changed(trials: Sequence[Trial]) -> None:
    """Raises `ConfigError` if a run on the disk was made with other settings."""
    for trial in trials:
        if changed := trial.changed():
            raise ConfigError(
                f"{trial.folder} holds a run with other settings:\n  " + "\n  ".join(changed) + "\n"
                "Use --fresh to run everything anew, or another --output"
            )


async def play(
    trials: Sequence[Trial],
    *,
    jobs: int = 1,
    started: Callable[[Trial], None] = lambda trial: None,
    ended: Callable[[Trial, str | None], None] = lambda trial, error: None,
) -> dict[str, str]:
    """Runs what is not finished, `jobs` at a time; {name: what it printed last} of those that
    failed. `ended` is told the same, or None. Ends its processes where it is cancelled."""
    gate, failed = asyncio.Semaphore(jobs), {}

    async def one(trial: Trial) -> None:
        async with gate:
            started(trial)
            if not trial.finished:
                adopt(trial, trials)
            error = None if trial.finished else await _run(trial)
            if error is not None:
                failed[trial.name] = error
            ended(trial, error)

    async with asyncio.TaskGroup() as tasks:
        for trial in trials:
            tasks.create_task(one(trial))
    return failed


def forget(trials: Sequence[Trial]) -> None:
    """Removes what earlier runs of the trials left, all stages."""
    for trial in trials:
        for recipe in trial.recipes:
            clear_folder(folder_of(recipe))


def adopt(trial: Trial, others: Sequence[Trial]) -> None:
    """Copies first stages that another trial with the same settings and seed has finished. One
    that this trial has begun itself is left as it is."""
    for index, recipe in enumerate(trial.recipes[:-1]):
        folder = folder_of(recipe)
        if folder.is_dir() and any(folder.iterdir()):
            continue
        twin = next((one for one in others if _has_done(one, trial, index)), None)
        if twin is None:
            return
        half = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(half, ignore_errors=True)
        # the settings name the run: `train` writes them anew
        leave = shutil.ignore_patterns(RESOLVED)
        shutil.copytree(folder_of(twin.recipes[index]), half, ignore=leave)
        half.rename(folder)


def _has_done(one: Trial, trial: Trial, index: int) -> bool:
    """Whether `one` is through with stage `index`, which with all before it is that of `trial`."""
    if one is trial or len(one.recipes) <= index + 1:
        return False
    pairs = zip(one.recipes[: index + 1], trial.recipes[: index + 1], strict=True)
    # dumps: recipes also compare what their plug-ins keep beside the fields
    same = all(a.model_dump() | {"name": b.name} == b.model_dump() for a, b in pairs)
    return same and (folder_of(one.recipes[index + 1]) / RESOLVED).is_file()


async def _run(trial: Trial) -> str | None:
    trial.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "COHORT_TRACEBACK": "1", "NO_COLOR": "1"}
    with trial.log.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "trainer.arm", "train", str(trial.path), *trial.words),
            stdin=asyncio.subprocess.PIPE,
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
    if code == 0:
        return None
    text = trial.log.read_text(encoding="utf-8", errors="replace").rstrip()
    start = text.rfind("Traceback (most recent call last)")
    kept = text[start:] if start >= 0 else "\n".join(text.splitlines()[-20:])
    return kept or f"ended with exit code {code} and printed nothing"
