"""Runs a recipe with several seeds and prints the held-out figures as a Markdown table.

python scripts/seeds.py recipes/quickstart_text.yaml --seeds 0 1 2

For a comparison with baselines see `cohort reproduce`, which runs the same trials. A script that
was stopped goes on where it was; --fresh runs everything anew.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from trainer.monitors.base import read_rows
from trainer.ops.panels import interval
from trainer.trials import Trial, forget, make_trial, play, refuse_changed
from trainer.yaml import load_recipe


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fresh", action="store_true")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, overrides=arguments.overrides)[-1]
    trials = [
        make_trial(
            arguments.recipe, recipe.name, seed, arguments.overrides, output=recipe.output / "seeds"
        )
        for seed in arguments.seeds
    ]
    if arguments.fresh:
        forget(trials)
    refuse_changed(trials)
    failed = asyncio.run(play(trials, started=lambda trial: print(trial.name, file=sys.stderr)))
    print("| seed | held-out | sampled before | sampled after | greedy before | greedy after |")
    print("|---|---|---|---|---|---|")
    for trial in trials:
        if trial.name not in failed:
            print(_row(trial))
    for name, text in failed.items():
        print(f"{name} failed:\n{text}", file=sys.stderr)
    return 1 if failed else 0


def _row(trial: Trial) -> str:
    """First and last evaluation."""
    tables = list(read_rows(trial.folder / "evaluations.jsonl"))
    before, after = tables[0], tables[-1]
    cells = [interval(t[kind]) for kind in ("sampled", "greedy") for t in (before, after)]
    return f"| {trial.seed} | {before['name']} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
