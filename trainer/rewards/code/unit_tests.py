"""Whether a written program passes the row's tests."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from trainer.ops import code_driver
from trainer.ops.code_blocks import program
from trainer.ops.code_tests import Case, cases
from trainer.ops.parsing import Unparsable
from trainer.rewards.base import Verdict
from trainer.sandboxed import SandboxedReward
from trainer.types import Prompt, Rollout, Score, ScoreStatus


class UnitTests(SandboxedReward):
    """all: 1[every test passes]; share: passed / tests. Parts `all` and `share`.

    The program is the last closed Python fence. The column holds inputs and outputs, or asserts
    `f(literals) == literal` (see `trainer.ops.code_tests.cases`); only inputs enter the sandbox,
    one fresh process per test, and what comes back is compared here. A program that crashes, runs
    out of time or memory, or writes too much fails that test. No program: 0, `unparsable`. A row
    without tests does not apply; tests that cannot be kept from the program are an error. A program
    that several rollouts of a row wrote runs once.
    """

    driver = code_driver

    value: Literal["all", "share"] = "all"
    column: str = "tests"
    """Column of the row; empty there: `answer`."""
    entry_point: str = "entry_point"
    """Column with the name of the function to call, where tests do not name it."""
    most: int = Field(20, ge=1)
    """Tests tried, from the first."""
    total_seconds: float = Field(8.0, gt=0)
    """For all tests of one program; those not reached fail."""
    tolerance: float = Field(1e-6, ge=0)
    """Between floats, absolute or relative."""
    packages: bool = False
    """Programs may import what is installed here, not the standard library alone."""
    require_fence: bool = True
    """Off: a reply without a fence is a program as a whole."""

    @property
    def own_seconds(self) -> float:
        return self.total_seconds

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"meta.{self.column}|answer"})

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        tests = prompt.meta.get(self.column)
        tests = prompt.answer if tests is None else tests
        if tests is None:
            reason = f"the row has neither {self.column} nor answer"
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason=reason)
        tried = cases(tests, prompt.meta.get(self.entry_point))[: self.most]
        try:
            code = program(rollout.reply, ("python", "py", "python3"), require=self.require_fence)
        except Unparsable as error:
            return Score(0.0, status=ScoreStatus.UNPARSABLE, reason=str(error))
        passed, reason = self.once((code, repr(tried)), lambda: self._passed(code, tried))
        parts = {"all": float(passed == len(tried)), "share": passed / len(tried)}
        return Score(parts[self.value], parts=dict(parts), reason=reason)

    def _passed(self, code: str, tried: Sequence[Case]) -> tuple[int, str]:
        """How many tests pass, and what is wrong with the first that does not."""
        end, passed, reason = time.monotonic() + self.total_seconds, 0, ""
        for number, case in enumerate(tried):
            wrong = self._wrong(code, case, end - time.monotonic())
            passed += not wrong
            reason = reason or (f"test {number}: {wrong}" if wrong else "")
        return passed, reason

    def _wrong(self, code: str, case: Case, seconds: float) -> str:
        """Why the test fails; empty if it passes."""
        if seconds <= 0:
            return "no time was left"
        if case.name is None:
            done = self.cell.run(code, stdin=case.stdin, packages=self.packages, seconds=seconds)
            if not done.fine:
                return done.reason
            given: Any = done.stdout.decode("utf-8", "replace")
        else:
            request = {
                "code": code,
                "name": case.name,
                "arguments": code_driver.encode(case.arguments),
                "named": code_driver.encode(dict(case.named)),
            }
            done = self.drive(request, packages=self.packages, seconds=seconds)
            if not done.fine:
                return done.reason
            try:
                given = code_driver.decode(json.loads(done.result))
            except (ValueError, RecursionError):
                return "returned nothing that can be read"
        return "" if case.passed(given, self.tolerance) else "wrong answer"
