"""What an engine does with callers that wait: notices that all have asked, and answers them."""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from typing import TypeVar

T = TypeVar("T")
_QUIET_TURNS = 5


async def quiet(pending: Sized) -> None:
    """Returns when nothing has been added for some turns of the event loop: coroutines that were
    woken together get to ask before a batch starts, so a run can be repeated to the last bit."""
    seen, turns = len(pending), 0
    while turns < _QUIET_TURNS:
        await asyncio.sleep(0)
        seen, turns = (seen, turns + 1) if len(pending) == seen else (len(pending), 0)


def settle(future: asyncio.Future[T], outcome: T | Exception) -> None:
    """Answers, or raises in, a caller that may have given up."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
