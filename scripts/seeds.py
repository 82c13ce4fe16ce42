"""Runs a recipe with several seeds and prints the held-out figures as a Markdown table.

python scripts/seeds.py recipes/quickstart_text.yaml --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from trainer.run_folder import folder_of
from trainer.yaml import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    rows = [_run(arguments.recipe, arguments.overrides, seed) for seed in arguments.seeds]
    print("| seed | held-out | sampled before | sampled after | greedy before | greedy after |")
    print("|---|---|---|---|---|---|")
    for seed, (before, after) in zip(arguments.seeds, rows, strict=True):
        cells = [_cell(t[kind]) for kind in ("sampled", "greedy") for t in (before, after)]
        print(f"| {seed} | {before['name']} | {' | '.join(cells)} |")


def _run(path: str, overrides: list[str], seed: int) -> tuple[dict, dict]:
    """First and last evaluation of a fresh run."""
    name = f"{load_recipe(path, overrides=overrides)[-1].name}_seed{seed}"
    words = [*overrides, f"seed={seed}", f"name={name}", "monitors=[jsonl]"]
    subprocess.run([sys.executable, "-m", "trainer", "train", path, *words, "--fresh"], check=True)
    folder = folder_of(load_recipe(path, overrides=words)[-1])
    tables = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    return tables[0], tables[-1]


def _cell(figure: dict) -> str:
    return f"{figure['mean']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


if __name__ == "__main__":
    main()
