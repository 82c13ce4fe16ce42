"""Whether two mathematical answers are the same, by math-verify. Neither torch nor signals."""

from __future__ import annotations

import logging
import re
from typing import Any

from trainer.errors import MissingService
from trainer.types import Score, ScoreStatus

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")


def load() -> None:
    """Imports math-verify, which takes a second; `MissingService` if it is not installed."""
    try:
        import math_verify  # noqa: F401
    except ImportError as error:
        raise MissingService("math rewards need math-verify: pip install math-verify") from error
    # it warns at every call that its own, signal-based timeout is off; the process deadline is on
    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.ERROR)


def same_answer(gold: str, answer: str) -> bool | None:
    """True if `answer` equals `gold`, both LaTeX (with or without `$`) or plain.

    Equal text is equal, integers are compared as integers, everything else by math-verify
    (numbers to 6 digits, sets, intervals, equations; the gold side decides what is asked for).
    None if `answer` cannot be read as mathematics while `gold` can. May take for ever on hostile
    input (`9^9^9^9`): call it where a deadline kills.
    """
    gold, answer = _bare(gold), _bare(answer)
    if gold == answer:
        return True
    if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(answer):
        return int(gold) == int(answer)
    from math_verify import verify

    wanted = _parse(gold)
    if not wanted:
        return False  # a gold answer that is not mathematics: text was compared above
    given = _parse(answer)
    if not given:
        return None
    return bool(verify(wanted, given, timeout_seconds=None))


def grade_answer(gold: Any, answer: str) -> Score:
    """1 if `answer` equals `gold`, or one item of it where it is a list; else 0, `unparsable` if
    `answer` cannot be read."""
    accepted = gold if isinstance(gold, list | tuple) else [gold]
    same = [same_answer(str(item), answer) for item in accepted]
    if any(same):
        return Score(1.0)
    if None in same:
        return Score(0.0, status=ScoreStatus.UNPARSABLE, reason="the answer is not mathematics")
    return Score(0.0)


def _parse(text: str) -> list[Any]:
    from math_verify import parse

    # plain expressions such as `1/2` or `x^2+1` are LaTeX enough between dollars
    no_alarm: Any = {"parsing_timeout": None}
    return parse(f"${text}$", **no_alarm) or parse(text, **no_alarm)


def _bare(text: str) -> str:
    """Without the decoration around an answer: white space, dollars, `\\( \\)`, a full stop,
    commas between thousands."""
    text = text.strip().strip("$").strip()
    if text.startswith(("\\(", "\\[")) and text.endswith(("\\)", "\\]")):
        text = text[2:-2].strip()
    text = text.removesuffix(".").strip()
    return text.replace(",", "") if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", text) else text
