"""Whether a written SQL query returns what the right one returns."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from trainer.ops import sql_driver
from trainer.ops.code_blocks import program
from trainer.ops.parsing import Unparsable
from trainer.ops.sandbox import Outcome, Sandbox
from trainer.ops.sql_results import Row, as_rows, is_ordered, read_rows, same_rows
from trainer.rewards.base import Verdict
from trainer.sandboxed import SandboxedReward
from trainer.types import Prompt, Rollout, Score, ScoreStatus


class Sql(SandboxedReward):
    """1[rows of the reply's query = rows of the row's query], in any order unless the right query
    has an outmost ORDER BY. Parts: `exec`, that; `syntax`, 1 if it ran at all.

    Both run in sqlite inside the sandbox, each on a fresh database: the column `schema` (a script
    of CREATE and INSERT) or the file named in `db_path`. The right query is `answer`, or its rows
    are the column `rows`; neither enters the sandbox of the reply's query. A query that fails,
    takes too long or returns too much: 0. No query: 0, `unparsable`. Two empty results are equal,
    as everywhere in the field: a row whose right result is empty teaches little. Source: the
    execution and syntax parts after Reasoning-SQL, of which only the abstract was read.
    """

    driver = sql_driver
    runs = 2  # the row's query too, for its first rollout

    schema_column: str = "schema"
    file_column: str = "db_path"
    rows_column: str = "rows"
    folder: Path | None = None
    """Where relative database paths start; None: the working folder."""
    bag: bool = True
    """Repeated rows count; off: results are compared as sets, as BIRD does."""
    most_rows: int = Field(10_000, ge=1)
    require_fence: bool = True
    """Off: a reply without a fence is a query as a whole."""
    sandbox: Sandbox = Sandbox(output_kb=4096)

    @property
    def needs(self) -> frozenset[str]:
        database = f"meta.{self.schema_column}|meta.{self.file_column}"
        return frozenset({database, f"answer|meta.{self.rows_column}"})

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        if prompt.answer is None and prompt.meta.get(self.rows_column) is None:
            reason = f"the row has neither answer nor {self.rows_column}"
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason=reason)
        try:
            query = program(rollout.reply, ("sql", "sqlite"), require=self.require_fence)
        except Unparsable as error:
            parts = {"exec": 0.0, "syntax": 0.0}
            return Score(0.0, parts=dict(parts), status=ScoreStatus.UNPARSABLE, reason=str(error))
        right = self._expected(prompt)
        schema, file = self._database(prompt)
        key = ("reply", str(file or schema), query)
        given, reason = self.once(key, lambda: self._given(query, prompt))
        ordered = prompt.answer is not None and is_ordered(str(prompt.answer))
        same = given is not None and same_rows(given, right, ordered=ordered, bag=self.bag)
        parts = {"exec": float(same), "syntax": float(given is not None)}
        return Score(float(same), parts=dict(parts), reason=reason)

    def _given(self, query: str, prompt: Prompt) -> tuple[list[Row] | None, str]:
        """The rows of a reply's query, or None and why."""
        done = self._run(query, prompt)
        try:
            return (read_rows(done.result) if done.fine else None), done.reason
        except ValueError as error:
            return None, str(error)

    def _expected(self, prompt: Prompt) -> list[Row]:
        rows = prompt.meta.get(self.rows_column)
        if rows is not None:
            return as_rows(rows)
        schema, file = self._database(prompt)
        return self.once((str(file or schema), str(prompt.answer)), lambda: self._right(prompt))

    def _right(self, prompt: Prompt) -> list[Row]:
        done = self._run(str(prompt.answer), prompt)
        try:
            return read_rows(done.result)
        except ValueError as error:
            raise ValueError(f"the row's own query fails: {done.reason or error}") from None

    def _database(self, prompt: Prompt) -> tuple[str, Path | None]:
        schema, named = (prompt.meta.get(name) for name in (self.schema_column, self.file_column))
        if schema is not None:
            return str(schema), None
        if named is None:
            names = f"{self.schema_column!r} or {self.file_column!r}"
            raise ValueError(f"the row needs a database: {names}")
        file = Path(self.folder or ".", str(named)).resolve()
        if not file.is_file():
            raise ValueError(f"{self.file_column} {str(named)!r}: no such file")
        return "", file

    def _run(self, query: str, prompt: Prompt) -> Outcome:
        schema, file = self._database(prompt)
        request = {"schema": schema, "query": query, "most": self.most_rows, "file": None}
        if file is not None:
            request["file"] = self.cell.inside(file)
        return self.drive(request, shows=(file,) if file else ())
