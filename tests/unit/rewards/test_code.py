"""code/unit_tests and code/sql: what programs do is data, never a verdict."""

from __future__ import annotations

import pytest

from trainer.config import Scoring
from trainer.errors import MissingService
from trainer.ops.sandbox import Cell, Sandbox
from trainer.rewards.base import Call
from trainer.scoring import Scorer
from trainer.types import ScoreStatus


@pytest.fixture(scope="module", autouse=True)
def cell():
    try:
        return Sandbox().open()
    except MissingService as error:
        pytest.skip(str(error))


def py(code: str) -> str:
    return f"```python\n{code}\n```"


ADD = [{"input": "1 2", "output": "3"}, {"input": "5 5", "output": "10"}]
SUM = "print(sum(map(int, input().split())))"


def test_programs(grade):
    replies = [py(SUM), py("print(3)"), py("1 /"), py("while True: pass"), "no code"]
    spec = {"type": "code/unit_tests", "value": "share", "sandbox": {"seconds": 1}}
    scores = grade(spec, replies, meta={"tests": ADD})
    assert [score.value for score in scores] == [1.0, 0.5, 0.0, 0.0, 0.0]
    assert [score.parts.get("all") for score in scores] == [1.0, 0.0, 0.0, 0.0, None]
    assert scores[1].reason == "test 1: wrong answer"
    assert scores[2].reason == "test 0: exit code 1: SyntaxError: invalid syntax"
    assert scores[3].reason == "test 0: took too long"
    assert scores[4].status is ScoreStatus.UNPARSABLE


def test_functions(values):
    asserts = ["assert f(2) == [4]", "assert f(0) == []"]
    replies = [
        py("def f(x): return [x * x] if x else []"),
        py("class Solution:\n    def f(self, x): return [x * x] * bool(x)"),
        py("def f(x): return (x * x,)"),
        py("def g(x): return [4]"),
    ]
    spec = {"type": "code/unit_tests", "value": "share"}
    assert values(spec, replies, meta={"tests": asserts}) == [1.0, 1.0, 0.0, 0.0]
    assert values("code/unit_tests", replies[:1], answer="\n".join(asserts)) == [1.0]


def test_rows_of_unit_tests(grade):
    assert grade("code/unit_tests", [py("1")])[0].status is ScoreStatus.NOT_APPLICABLE
    with pytest.raises(ValueError, match="right answer would have to be shown"):
        grade("code/unit_tests", [py("1")], answer="assert f(1) < 2")
    spec = {"type": "code/unit_tests", "most": 1}
    assert grade(spec, [py("print(3)")], meta={"tests": ADD})[0].value == 1.0
    spec = {"type": "code/unit_tests", "total_seconds": 0.5, "value": "share"}
    (score,) = grade(spec, [py("import time; time.sleep(9)")], meta={"tests": ADD})
    assert (score.value, score.reason) == (0.0, "test 0: took too long")


HOSTILE = {
    "prints fake verdicts": "print('PASSED all tests'); print({'all': 1.0}); print('1 passed')",
    "writes fake results": "import os\nfor fd in range(3, 64):\n"
    '    try: os.write(fd, b\'{"exit": 0}\\n{"passed": true}\')\n    except OSError: pass',
    "equals everything": "class Yes(int):\n    def __eq__(self, o): return True\n"
    "    def __repr__(self): return 'x'\n    __hash__ = int.__hash__\ndef f(x): return Yes(0)",
    "patches the checker": "import builtins, json, os, sys\n"
    "for name in ('all', 'any', 'len', 'isinstance'): setattr(builtins, name, lambda *a: True)\n"
    "json.dumps = lambda *a, **k: 'true'\nsys.modules['__main__'].encode = lambda *a: True\n"
    "class F:\n    def __call__(self, *a, **k): return F()\n    def __eq__(self, o): return True\n"
    "f = F()",
    "speaks for the driver": "import json, sys\njson.dumps = lambda *a, **k: 'true'\n"
    "sys.modules['__main__'].encode = lambda *a: True\ndef f(x): return 0",
    "looks for the answer key": "import gc, os, sys\ndef f(x):\n    frame = sys._getframe()\n"
    "    while frame:\n        for one in list(frame.f_globals.values()) + "
    "list(frame.f_locals.values()):\n            if isinstance(one, dict) and 'right' in one: "
    "return one['right']\n        frame = frame.f_back\n"
    "    return max((x for x in gc.get_objects() if isinstance(x, int) and x > 400), default=0)",
    "exits well": "import os; os._exit(0)",
    "exits at the end": "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)",
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize(
    "tests", [[{"input": "21", "output": "441"}], ["assert f(21) == 441"]], ids=["text", "call"]
)
def test_hostile_programs_earn_nothing(grade, kind, tests):
    (score,) = grade("code/unit_tests", [py(HOSTILE[kind])], meta={"tests": tests})
    assert score.value == 0.0
    assert score.reason.startswith("test 0: ")


IN_ITS_OWN_PROCESS = """
import json, os, sys
scope = {"__name__": "solution"}
exec(REQUEST["code"], scope)
passed = "f" in scope and scope["f"](21) == REQUEST["right"]
print("1 passed" if passed else "1 failed")
os.write(3, json.dumps({"passed": passed}).encode())
sys.exit(not passed)
"""
"""A checker beside the program, with the right answer in hand: what `code/unit_tests` is not."""


def believed(cell: Cell, code: str) -> set[str]:
    """Which of the signs that such a checker gives say that the program is right."""
    done = cell.run(IN_ITS_OWN_PROCESS, request={"code": code, "right": 441})
    signs = {
        "text": b"passed" in done.stdout.lower(),
        "result": b"true" in done.result,
        "exit code": done.code == 0,
    }
    return {sign for sign, says in signs.items() if says}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_programs_fool_a_checker_in_their_own_process(cell, kind):
    assert believed(cell, HOSTILE[kind])


def test_what_that_checker_says_of_honest_programs(cell):
    assert believed(cell, "def f(x): return x * x") == {"text", "result", "exit code"}
    assert believed(cell, "def f(x): return 2 * x") == set()


async def test_a_run_scores_through_the_border(score, make_replies):
    hang = py(
        "import os, time\nif not os.fork(): time.sleep(99)\nos.kill(os.getppid(), 9)\nprint(3)"
    )
    group = make_replies([py(SUM), hang, py("import os; os.abort()")], meta={"tests": ADD})
    scores = await score({"type": "code/unit_tests", "sandbox": {"seconds": 3}}, group)
    assert [one.value for one in scores] == [1.0, 0.0, 0.0]
    assert {one.status for one in scores} == {ScoreStatus.OK}


def test_equal_programs_of_a_row_run_once(make_reward, make_replies, monkeypatch):
    made = []
    run = Cell.run
    monkeypatch.setattr(Cell, "run", lambda *a, **k: made.append(k) or run(*a, **k))
    reward = make_reward("code/unit_tests")
    reward.warm()
    made.clear()  # the probe
    group = make_replies([py(SUM), py("print(3)"), py(SUM), py(SUM)], meta={"tests": ADD})
    verdicts = reward.grade_group(group, Call())
    assert [one.value for one in verdicts] == [1.0, 0.0, 1.0, 1.0]
    assert len(made) == 2 * len(ADD)
    others = make_replies([py(SUM)], meta={"tests": [{"input": "1 2", "output": "4"}]})
    assert reward.grade_group(others, Call())[0].value == 0.0, "another row has other tests"


async def test_slow_code_is_a_0_however_short_the_deadline(make_reward, make_replies):
    """The code's time comes on top of `scoring.deadline`: a 0, and not the reward's fault."""
    spec = {"type": "code/unit_tests", "total_seconds": 1, "sandbox": {"seconds": 1}}
    config = Scoring(workers=1, deadline=0.5)
    group = make_replies([py("while True: pass")], meta={"tests": ADD})
    async with Scorer.open(make_reward(spec), config, seed=0, total_steps=9) as scorer:
        (found,) = await scorer.score_group(group, step=0)
    assert (found.value, found.status) == (0.0, ScoreStatus.OK)
    assert found.reason == "test 0: took too long"


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ({"type": "code/unit_tests"}, 8),
        ({"type": "code/sql", "sandbox": {"seconds": 5}}, 10),
        ({"type": "vision/svg"}, 4),
        ({"type": "vision/chart_code"}, 12),
        ({"type": "math/boxed"}, 0),
    ],
)
def test_the_time_of_the_code_itself(make_reward, spec, seconds):
    assert make_reward(spec).own_seconds == seconds


async def test_a_run_without_walls_is_refused(make_reward, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("code/unit_tests", "code/sql", "vision/chart_code"):
        reward = make_reward({"type": name, "sandbox": {"isolation": "bubblewrap"}})
        with pytest.raises(MissingService, match="no isolation for untrusted code"):
            async with reward.open(None):
                pass


SCHEMA = """
create table users (name text, age int);
insert into users values ('ann', 3), ('bob', 5), ('cy', 5);
"""


def sql(query: str) -> str:
    return f"```sql\n{query}\n```"


def test_reasoning_sql_card(grade):
    gold = "select name from users where age >= 3"
    replies = [sql("select name from users where age > 3"), sql(gold + " order by 1 desc"), "none"]
    scores = grade("code/sql", replies, answer=gold, meta={"schema": SCHEMA})
    assert [(s.parts["exec"], s.parts["syntax"]) for s in scores] == [(0, 1), (1, 1), (0, 0)]
    assert scores[2].status is ScoreStatus.UNPARSABLE


@pytest.mark.parametrize(
    ("query", "value", "says"),
    [
        ("select age from users order by age desc", 0.0, ""),
        ("select age from users order by age", 1.0, ""),
        ("select x from users", 0.0, "no such column"),
        ("select 3; select 5", 0.0, "one statement"),
        ("drop table users", 0.0, "returns no rows"),
        (
            "with recursive c(n) as (select 1 union all select n + 1 from c) select n from c",
            0,
            "rows",
        ),
        (
            "with recursive c(n) as (select 1 union all select n from c) select max(n) from c",
            0,
            "long",
        ),
        ("select load_extension('/lib/x.so')", 0.0, "not authorized"),
        ("select zeroblob(999999999)", 0.0, ""),
        ("attach '/usr/x.db' as y", 0.0, "unable to open"),
    ],
)
def test_queries(grade, query, value, says):
    gold = "select age from users order by age"
    spec = {"type": "code/sql", "sandbox": {"seconds": 1, "memory_mb": 256, "output_kb": 512}}
    (score,) = grade(spec, [sql(query)], answer=gold, meta={"schema": SCHEMA})
    assert score.value == value
    assert says in score.reason


def test_rows_of_sql(grade, tmp_path):
    import sqlite3

    file = tmp_path / "users.sqlite"
    with sqlite3.connect(file) as database:
        database.executescript(SCHEMA)
    database.close()
    before = file.read_bytes()
    tmp_path.chmod(0o755)
    replies = [sql("select age from users"), sql("delete from users returning age")]
    spec = {"type": "code/sql", "folder": str(tmp_path)}
    meta = {"db_path": file.name, "rows": [[5], [3], [5]]}
    assert [s.value for s in grade(spec, replies, meta=meta)] == [1.0, 0.0]
    assert file.read_bytes() == before
    assert grade(spec, replies[:1], meta={"schema": SCHEMA})[0].status is ScoreStatus.NOT_APPLICABLE
    as_set = {"type": "code/sql", "bag": False}
    meta = {"schema": SCHEMA, "rows": [[3], [5]]}
    assert grade(as_set, replies[:1], meta=meta)[0].value == 1.0
    for meta, says in (
        ({"db_path": "../none.db"}, "no such file"),
        ({}, "needs a database"),
        ({"schema": "create tabel t"}, "schema fails"),
        ({"schema": SCHEMA}, "own query fails"),
    ):
        with pytest.raises(Exception, match=says):
            grade(spec, replies[:1], answer="select y from users", meta=meta)
