"""What one run of written code costs: a fresh interpreter against a fork of a prepared server.

    python scripts/bench/sandbox.py [--rounds 15]

Both build the same walls and must give the same result; they take turns in one process (ABAB).
Medians of wall time. `begins` is what the server does once per worker. Needs Linux with user
namespaces, where the sandbox starts runs by a server.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from trainer.ops import code_driver
from trainer.ops.fork_server import ForkServer
from trainer.rewards.code.sql import Sql
from trainer.rewards.code.unit_tests import UnitTests
from trainer.rewards.vision.chart_code import ChartCode
from trainer.rewards.vision.svg import Svg
from trainer.sandboxed import SandboxedReward

CALL = {
    "code": "def f(x): return x * x",
    "name": "f",
    "arguments": code_driver.encode((21,)),
    "named": code_driver.encode({}),
}
QUERY = {
    "schema": "create table t (a int); insert into t values (1), (2);",
    "query": "select sum(a) from t",
    "most": 9,
    "file": None,
}
SVG = '<svg viewBox="0 0 9 9"><circle cx="4" cy="4" r="3" fill="#f00"/></svg>'
CHART = (
    "import matplotlib.pyplot as plt\n"
    'plt.bar([1, 2, 3], [3, 5, 2], color="red")\nplt.title("cats")\n'
)
CASES: dict[str, tuple[SandboxedReward, Callable[[Any], Any]]] = {
    "empty program": (UnitTests(), lambda reward: reward.cell.run("").fine),
    "function call": (UnitTests(), lambda reward: reward.drive(CALL).result),
    "SQL query": (Sql(), lambda reward: reward.drive(QUERY).result),
    "SVG, 672 x 672": (Svg(), lambda reward: reward._render(SVG, None).tobytes()),
    "chart, 20 dpi": (ChartCode(dpi=20), lambda reward: reward._draw(CHART).result),
    "chart, 80 dpi": (ChartCode(), lambda reward: reward._draw(CHART).result),
}


def timed(run: Callable[[Any], Any], reward: SandboxedReward) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run(reward)
    return (time.perf_counter() - start) * 1e3, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print("| run | fresh ms | forked ms | ratio | begins ms |")
    print("|---|---|---|---|---|")
    for name, (forked, run) in CASES.items():
        forked.warm()
        if forked.cell.server is None:
            raise SystemExit(f"{forked.cell.kind}: runs are not started by a server here")
        fresh = forked.model_copy()
        fresh._cell = replace(forked.cell, server=None)
        again = forked.model_copy()
        again._cell = replace(forked.cell, server=ForkServer(forked.first()))
        empty = CASES["empty program"][1]
        begins = timed(empty, again)[0] - timed(empty, again)[0]
        times: dict[str, list[float]] = {"fresh": [], "forked": []}
        for _ in range(rounds):
            one, by_itself = timed(run, fresh)
            other, by_server = timed(run, forked)
            times["fresh"].append(one)
            times["forked"].append(other)
            assert by_itself == by_server, name
            assert by_server, name
        a, b = (statistics.median(times[kind]) for kind in ("fresh", "forked"))
        print(f"| {name} | {a:.0f} | {b:.0f} | {a / b:.1f} | {begins:.0f} |", flush=True)


if __name__ == "__main__":
    main()
