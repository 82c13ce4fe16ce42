"""The command `cohort`. Heavy packages are imported inside the commands, so `--help` is instant."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trainer import __version__
from trainer.errors import CohortError, ConfigError

if TYPE_CHECKING:
    from trainer.config import Recipe

T = TypeVar("T")

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit codes: a run failed; the recipe or the command line is wrong; Ctrl-C."""

OVERRIDES = "settings on top of the file: loss.clip_high=0.28 scale=full stages=[rl]"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Errors meant for people are one message on
    standard error; COHORT_TRACEBACK=1 adds the traceback. Other errors always show theirs."""
    arguments = _parse(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    if os.getcwd() not in sys.path:  # a recipe may name `my_module:MyReward` of this folder
        sys.path.insert(0, os.getcwd())
    try:
        return command(arguments)
    except KeyboardInterrupt:
        _say("interrupted" + getattr(arguments, "interrupted", ""))
        return INTERRUPTED
    except BrokenPipeError:  # `cohort schema | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return _report(error)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Runs the coroutine of a command that loads a model."""
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # "Loading weights" would break into the live display
    enable_progress_bars()  # but a download may take long, and says so
    return asyncio.run(_ending(work))


async def _ending(work: Coroutine[Any, Any, T]) -> T:
    """Among several processes an error ends this one at once. Leaving in order could wait for ever:
    for a thread that sits in a collective, which the other processes may never enter."""
    try:
        return await work
    except Exception as error:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise
        code = _report(error)
        sys.stdout.flush()
        # The others fail when this process is gone. torchrun takes the earliest failure for the
        # cause and counts in whole seconds.
        time.sleep(1.1)
        os._exit(code)


def _report(error: Exception) -> int:
    """Says what happened, and returns the exit code."""
    causes = list(_leaves(error))
    meant = [cause for cause in causes if isinstance(cause, CohortError)]
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun prints the first failure last
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        handler = get_error_handler()
        handler.initialize()
        handler.record_exception((meant or causes)[0])
    for cause in meant or causes:
        if not meant or os.environ.get("COHORT_TRACEBACK") == "1":
            _say("".join(traceback.format_exception(cause)).rstrip())
    for cause in meant:
        _say(f"{type(cause).__name__}: {cause}", red=True)
    return MISUSED if meant and isinstance(meant[0], ConfigError) else FAILED


def _leaves(error: BaseException) -> list[BaseException]:
    """The errors inside the groups that asyncio's TaskGroup makes, without repetition."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    found = [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return list({str(leaf): leaf for leaf in reversed(found)}.values())[::-1]


def _say(text: str, *, red: bool = False) -> None:
    rank = os.environ.get("RANK") if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
    if rank is not None:
        text = "\n".join(f"[rank {rank}] {line}" for line in text.split("\n"))
    colour = red and sys.stderr.isatty() and "NO_COLOR" not in os.environ
    print(f"\033[1;31m{text}\033[0m" if colour else text, file=sys.stderr, flush=True)


def _train(arguments: argparse.Namespace) -> int:
    recipes = _recipes(arguments)
    from trainer.stages import run_stages

    _run(run_stages(recipes, fresh=arguments.fresh))
    return 0


def _eval(arguments: argparse.Namespace) -> int:
    recipe = _recipes(arguments)[-1]
    from rich.console import Console

    from trainer.evaluate import evaluate_checkpoint
    from trainer.ops.panels import evaluation_table, sample_answers

    table = _run(evaluate_checkpoint(recipe, arguments.checkpoint))
    if int(os.environ.get("RANK", "0")) == 0:
        if arguments.output:
            arguments.output.write_text(json.dumps(table, indent=2, default=str) + "\n")
        console = Console()
        console.print(evaluation_table([table]))
        console.print(sample_answers([table]) or "")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    recipes = _recipes(arguments)
    from rich.console import Console

    from trainer.check import check_recipe
    from trainer.outcome_page import claims_page
    from trainer.reproduce import check_claim
    from trainer.stage_models import planned

    checks = [check_recipe(recipe) for recipe in planned(recipes)]
    for check in checks:
        Console().print(check)
    if (claim := check_claim(Path(arguments.recipe), arguments.scale)) is not None:
        Console().print(claims_page({recipes[-1].name: claim}))
    return MISUSED if any(check.problems for check in checks) else 0


def _reproduce(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from trainer.outcome_page import claims_page, page
    from trainer.reproduce import Request, claims, reproduce

    console = Console()
    if arguments.recipe is None:
        console.print(claims_page(claims()))
        return 0
    request = Request(
        recipe=arguments.recipe,
        settings=tuple(arguments.overrides),
        seeds=arguments.seeds,
        arms=arguments.arms,
        scale=arguments.scale,
        jobs=arguments.jobs,
        output=arguments.output,
        fresh=arguments.fresh,
    )
    outcome, failed, folder = reproduce(request, console)
    console.print(page(outcome))
    console.print(f"written: {folder}/table.md, results.json, curves.png", highlight=False)
    for name, text in failed.items():
        _say(f"{name} failed (its log: {folder}/{name}.log):\n{text}")
    return FAILED if failed else 0


def _listed(item: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Type of an argument like `0,1,2`."""

    def several(text: str) -> tuple[T, ...]:
        return tuple(item(one) for one in text.split(",") if one)

    several.__name__ = f"comma-separated {item.__name__}"
    return several


def _serve(arguments: argparse.Namespace) -> int:
    recipe = _recipes(arguments)[-1]
    from trainer.serve import serve

    def say(line: str) -> None:
        print(line, flush=True)

    _run(serve(recipe, host=arguments.host, port=arguments.port, say=say))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from trainer.page.build import write_page
    from trainer.show import show_run

    console = Console()
    console.print(show_run(arguments.run))
    if not arguments.no_html:
        path = write_page(arguments.run, arguments.html).resolve()
        console.print(f"page: {path}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    from trainer.schema import recipe_schema

    print(json.dumps(recipe_schema(), indent=2, ensure_ascii=False))
    return 0


def _score(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from trainer.config import Scoring
    from trainer.rewards.base import Reward
    from trainer.score_file import score_file, score_table
    from trainer.yaml import load_plugin

    reward = load_plugin(Reward, arguments.reward, "--reward")
    scoring = load_plugin(Scoring, arguments.scoring, "--scoring")
    rows = asyncio.run(score_file(reward, arguments.rows, scoring))
    Console().print(score_table(rows))
    if arguments.output:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        arguments.output.write_text("".join(lines), encoding="utf-8")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from trainer.doctor import doctor_page, missing

    Console().print(*doctor_page(), sep="\n")
    return FAILED if missing() else 0


def _recipes(arguments: argparse.Namespace) -> list[Recipe]:
    from trainer.yaml import load_recipe

    return load_recipe(
        arguments.recipe,
        scale=arguments.scale,
        overrides=arguments.overrides,
        stage=arguments.stage,
    )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    wrong = [word for word in rest if word.startswith("-") or "=" not in word]
    if wrong or (rest and not hasattr(arguments, "overrides")):
        parser.error(f"unknown argument: {' '.join(wrong or rest)}")
    if rest:  # argparse takes a list of positionals only in one piece
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cohort",
        description="Reinforcement-learning post-training for language and vision-language models.",
    )
    parser.add_argument("--version", action="version", version=f"cohort {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str):
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(command=command)
        return sub

    def add_recipe(name: str, command: Callable[[argparse.Namespace], int], text: str):
        sub = add(name, command, text)
        sub.add_argument("recipe", help="a YAML file")
        sub.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
        sub.add_argument("--scale", help="section of `scales` to use (default: tiny)")
        sub.add_argument("--stage", help="only this stage")
        return sub

    train = add_recipe("train", _train, "train a recipe, or continue where it stopped")
    train.add_argument("--fresh", action="store_true", help="start anew: removes the earlier run")
    train.set_defaults(
        interrupted=": the same command without --fresh continues after the newest checkpoint"
    )
    evaluate = add_recipe("eval", _eval, "measure a checkpoint on the held-out prompts")
    evaluate.add_argument(
        "--checkpoint",
        default="latest",
        help="latest, start, a step, or a model folder (default: latest)",
    )
    evaluate.add_argument("--output", type=Path, help="also write the table as JSON")
    add_recipe("check", _check, "print the whole plan of a run, without loading weights")
    again = add("reproduce", _reproduce, "show a method's claim against its baselines, over seeds")
    again.add_argument("recipe", nargs="?", help="a name in recipes/, or a YAML file; none: list")
    again.add_argument("overrides", nargs="*", metavar="key=value", help="for every arm")
    again.add_argument("--seeds", type=_listed(int), help="such as 0,1,2 (default: the claim's)")
    again.add_argument("--arms", type=_listed(str), help="only these (default: all)")
    again.add_argument("--scale", help="section of `scales` to use (default: tiny)")
    again.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    again.add_argument("--output", type=Path, default=Path("runs/reproduce"))
    again.add_argument("--fresh", action="store_true", help="forget earlier runs of these arms")
    again.set_defaults(
        interrupted=": the same command without --fresh goes on from what is finished"
    )
    server = add_recipe("serve", _serve, "start a recipe's vLLM servers on this node")
    server.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 for a trainer on another node (no authentication: "
        "only in a private network)",
    )
    server.add_argument("--port", type=int, default=8000, help="of the first worker; then + 1")
    server.set_defaults(interrupted=": the workers are stopped")
    show = add(
        "show", _show, "summarise a run folder; write its page: curves and a browser of rollouts"
    )
    show.add_argument("run", type=Path, help="a folder such as runs/quickstart_text")
    show.add_argument(
        "--html",
        type=Path,
        metavar="PATH",
        help="where the page is written (default: page.html in the run folder): one file that any "
        "browser opens, without a network",
    )
    show.add_argument("--no-html", action="store_true", help="only the summary")
    add("schema", _schema, "print the JSON schema of a recipe, for editors")
    score = add("score", _score, "score recorded answers: debug a reward before any training")
    score.add_argument("rows", type=Path, help="jsonl: prompt or messages, completion, answer, ...")
    score.add_argument("--reward", required=True, help="YAML, for instance '{type: vision/iou}'")
    score.add_argument("--output", type=Path, help="write the scored rows here, as jsonl")
    score.add_argument(
        "--scoring",
        default="{}",
        help="YAML, as a recipe's `scoring`: '{deadline: 60, encoder: {path: ...}}'",
    )
    add("doctor", _doctor, "what is installed, what is missing, what that disables")
    return parser
