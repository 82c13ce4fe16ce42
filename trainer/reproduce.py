"""`cohort reproduce`: a method's claim against its baselines, over seeds.

Writes below `output/NAME`: a folder and a log per run, `table.md`, `results.json`, `curves.png`.
"""

from __future__ import annotations

import asyncio
import difflib
import shlex
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from trainer.claim import Claim
from trainer.errors import ConfigError, DataError
from trainer.monitors.base import read_rows
from trainer.ops.panels import duration
from trainer.ops.sparkline import sparkline
from trainer.outcome import Numbers, Points, compare, number_of, points_of
from trainer.outcome_page import Outcome, as_json, draw, markdown
from trainer.trials import Trial, forget, make_trial, play, refuse_changed
from trainer.yaml import load_claim, load_recipe

if TYPE_CHECKING:
    from rich.console import Console

OUTPUT = Path("runs/reproduce")
RECIPES = Path("recipes")


@dataclass(frozen=True)
class Request:
    """What the command line asks for. None: as the claim says."""

    recipe: str
    """A file, or the name of one in `recipes/`."""
    settings: tuple[str, ...] = ()
    """`key=value` for every arm, above the arm's own."""
    seeds: tuple[int, ...] | None = None
    arms: tuple[str, ...] | None = None
    scale: str | None = None
    jobs: int = 1
    output: Path = OUTPUT
    fresh: bool = False


def claims(folder: Path = RECIPES) -> dict[str, Claim]:
    """{name: claim} of the recipes in a folder."""
    found = {path.stem: load_claim(path) for path in sorted(folder.glob("*.yaml"))}
    return {name: claim for name, claim in found.items() if claim is not None}


def find_recipe(name: str, folder: Path = RECIPES) -> Path:
    """The file called `name`, or `recipes/name.yaml`; `ConfigError` with the nearest name."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path  # `load_claim` says so if it is not there
    shipped = folder / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    known = [one.stem for one in sorted(folder.glob("*.yaml"))]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
    raise ConfigError(f"no recipe {name!r} in {folder}/; {hint}")


def claim_of(path: Path) -> Claim:
    """The file's claim; `ConfigError` if it has none."""
    claim = load_claim(path)
    if claim is None:
        known = ", ".join(claims(path.parent)) or "none"
        raise ConfigError(
            f"{path}: has no `claim:`, so there is nothing to reproduce; recipes beside it that "
            f"have one: {known}"
        )
    return claim


def trials_of(path: Path, claim: Claim, request: Request) -> list[Trial]:
    """Every arm with every seed, all arms of the first seed first. Raises `ConfigError` for an arm
    that is not there or that the recipe does not take."""
    arms = request.arms or tuple(claim.arms)
    for arm in arms:
        if arm not in claim.arms:
            raise ConfigError(f"--arms: no arm {arm!r} in {path}; known: {', '.join(claim.arms)}")
    folder = request.output / load_recipe(path, scale=request.scale)[-1].name
    trials = []
    for seed in request.seeds or claim.seeds:
        for arm in arms:
            settings = [*claim.overrides(arm), *request.settings]
            try:
                trial = make_trial(path, arm, seed, settings, output=folder, scale=request.scale)
            except ConfigError as error:
                raise ConfigError(f"claim.arms.{arm}: {error}") from None
            trials.append(trial)
    return trials


def check_claim(path: Path, scale: str | None = None) -> Claim | None:
    """The claim of a file if it has one, with all its arms loaded; raises `ConfigError`."""
    claim = load_claim(path)
    if claim is not None:
        trials_of(path, claim, Request(str(path), scale=scale))
    return claim


def reproduce(request: Request, console: Console) -> tuple[Outcome, dict[str, str], Path]:
    """Runs what is not finished; (what came out, {run: its traceback}, the folder written)."""
    path = find_recipe(request.recipe)
    claim = claim_of(path)
    trials = trials_of(path, claim, request)
    folder = trials[0].recipes[-1].output
    if request.fresh:
        forget(trials)
    refuse_changed(trials)
    folder.mkdir(parents=True, exist_ok=True)
    failed = asyncio.run(_watched(trials, request.jobs, console))
    outcome = gather(path, claim, trials, failed, request)
    (folder / "table.md").write_text(markdown(outcome), encoding="utf-8")
    (folder / "results.json").write_text(as_json(outcome), encoding="utf-8")
    draw(outcome, folder / "curves.png")
    return outcome, failed, folder


def gather(
    path: Path, claim: Claim, trials: Sequence[Trial], failed: dict[str, str], request: Request
) -> Outcome:
    """Measures the runs that did not fail."""
    arms = list(dict.fromkeys(trial.arm for trial in trials))
    scale = [f"scale={request.scale}"] if request.scale else []
    outcome = Outcome(
        name=trials[0].recipes[-1].output.name,
        claim=claim,
        scale=request.scale or "tiny",
        seeds=tuple(dict.fromkeys(trial.seed for trial in trials)),
        arms={
            arm: shlex.join(
                ["cohort", "train", str(path), *claim.overrides(arm), *request.settings, *scale]
            )
            for arm in arms
        },
        steps=max(trial.recipes[-1].steps for trial in trials),
        curves={},
        numbers={},
        comparisons=[],
    )
    outcome.problems += [f"{name} failed: {text.splitlines()[-1]}" for name, text in failed.items()]
    whole = [trial for trial in trials if trial.name not in failed]
    for measure in claim.measure:
        curves: dict[str, dict[int, Points]] = {}
        numbers: Numbers = {arm: {} for arm in arms}
        for trial in whole:
            try:
                points = points_of(trial.folder, measure.metric)
            except DataError as error:
                if trial.arm in claim.compared(measure):
                    outcome.problems.append(str(error))
                else:
                    numbers.pop(trial.arm, None)
                continue
            curves.setdefault(trial.arm, {})[trial.seed] = points
            numbers.setdefault(trial.arm, {})[trial.seed] = number_of(points, measure)
        outcome.curves[measure.title], outcome.numbers[measure.title] = curves, numbers
        against = [arm for arm in claim.compared(measure)[1:] if arm in arms]
        if claim.method in arms:
            outcome.comparisons += [compare(claim, measure, numbers, arm) for arm in against]
    return outcome


async def _watched(trials: Sequence[Trial], jobs: int, console: Console) -> dict[str, str]:
    """`play` with a live display in a terminal, and a line per run elsewhere."""
    from rich.live import Live

    board = Board(trials)
    live = Live(board, console=console, refresh_per_second=2) if console.is_terminal else None

    def started(trial: Trial) -> None:
        board.states[trial.name] = "kept" if trial.finished else "running"
        if live is None and not trial.finished:
            _say(console, f"{trial.name}: {'continues' if trial.done else 'starts'}")

    def ended(trial: Trial, error: str | None) -> None:
        kept = board.states[trial.name] == "kept"
        board.states[trial.name] = "failed" if error else "kept" if kept else "done"
        if live is None:
            how = (
                f"failed: {error.splitlines()[-1]}" if error else "was finished" if kept else "done"
            )
            _say(console, f"{trial.name}: {how} ({board.finished} of {len(trials)})")

    with live or nullcontext():
        return await play(trials, jobs=jobs, started=started, ended=ended)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


class Board:
    """The live display: one line per run, the time spent and left."""

    def __init__(self, trials: Sequence[Trial]):
        self.trials = trials
        self.states = dict.fromkeys((trial.name for trial in trials), "waiting")
        self._since = time.monotonic()
        self._before = sum(trial.done for trial in trials)
        self._spinner = Spinner("dots", style="cyan")

    @property
    def finished(self) -> int:
        return sum(state in ("done", "kept", "failed") for state in self.states.values())

    def __rich__(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        done = total = 0
        for trial in self.trials:
            state, steps = self.states[trial.name], trial.done
            total += trial.total
            done += trial.total if state in ("done", "kept", "failed") else steps
            mark = self._spinner if state == "running" else Text(MARKS[state][0], MARKS[state][1])
            rewards = [row["reward/mean"] for row in _rows(trial) if "reward/mean" in row]
            table.add_row(
                mark,
                trial.name,
                ProgressBar(total=trial.total, completed=steps, width=20),
                f"{steps}/{trial.total}",
                Text(sparkline(rewards, width=24), "cyan"),
                Text(f"reward {rewards[-1]:.3f}" if rewards else "", "dim"),
            )
        spent, new = time.monotonic() - self._since, done - self._before
        left = f", about {duration(spent * (total - done) / new)} left" if new > 0 else ""
        head = f"{self.finished} of {len(self.trials)} runs, {duration(spent)}{left}"
        return Group(table, Text(head, "dim"))


def _rows(trial: Trial) -> list[dict[str, Any]]:
    return list(read_rows(trial.folder / "metrics.jsonl"))


MARKS = {
    "waiting": ("·", "dim"),
    "running": ("▶", "cyan"),
    "done": ("✓", "green"),
    "kept": ("✓", "dim"),
    "failed": ("✗", "red"),
}
