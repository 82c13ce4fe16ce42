from __future__ import annotations

import json

import pytest
from PIL import Image
from pydantic import TypeAdapter
from rich.console import Console

from trainer.config import Scoring
from trainer.errors import DataError
from trainer.rewards.base import Reward
from trainer.score_file import read_groups, score_file, score_table, summarize_scores


@pytest.fixture
def write(tmp_path):
    def run(*rows):
        path = tmp_path / "rows.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n")
        return path

    return run


async def score(spec, path):
    reward = TypeAdapter(Reward).validate_python(spec)
    return await score_file(reward, path, Scoring(deadline=5, workers=1))


async def test_rows_summary_and_table(write):
    spec = {
        "type": "weighted",
        "terms": {
            "answer": {"reward": "text/exact"},
            "format": {"reward": {"type": "text/format", "layout": "answer"}, "weight": 0.5},
        },
    }
    path = write(
        {"prompt": "2+2?", "completion": "<answer>4</answer>", "answer": "4", "id": "sum"},
        "",
        {"messages": [{"role": "user", "content": "q"}], "answer": 5,
         "completion": ["so [b]<answer>5</answer>", "4"]},
        {"completion": [{"role": "assistant", "content": "<answer>x</answer>"}]},
    )  # fmt: skip
    rows = await score(spec, path)
    assert [(r["line"], r["reward"], r["status"]) for r in rows] == [
        (1, 1.5, "ok"),
        (3, 1.0, "ok"),
        (3, 0.0, "unparsable"),
        (4, 0.5, "ok"),
    ]
    assert rows[0] == {
        "line": 1,
        "id": "sum",
        "completion": "<answer>4</answer>",
        "reward": 1.5,
        "parts": {"answer": 1.0, "format": 1.0},
        "status": "ok",
        "reason": "",
    }
    assert rows[1]["id"] == f"{path}:3"
    assert rows[3]["parts"] == {"answer": None, "format": 1.0}
    json.dumps(rows)
    assert summarize_scores(rows) == {
        "rows": 4,
        "scored": 4,
        "mean": 0.75,
        "parts": {"answer": pytest.approx(2 / 3), "format": 0.5},
        "status": {"ok": 3, "unparsable": 1},
    }
    console = Console(width=160, record=True, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(score_table(rows, limit=2))
    shown = captured.get()
    for text in ("so [b]<answer>5", "3 ok, 1 unparsable", "4 of 4 scored", "0.75", "2 more rows"):
        assert text in shown


async def test_rows_of_a_group_are_scored_together(write, tmp_path, monkeypatch):
    (tmp_path / "ranking.py").write_text(
        "def rank(completions, level, **kwargs):\n"
        "    longest = max(len(c[0]['content']) for c in completions)\n"
        "    return [l * (len(c[0]['content']) == longest) for l, c in zip(level, completions)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = write(
        {"group": 1, "completion": "aaa", "level": 2},
        {"group": 2, "completion": "a", "meta": {"level": 3}},
        {"group": 1, "completion": "a", "level": 2},
    )
    rows = await score({"function": "ranking:rank"}, path)
    assert [r["reward"] for r in rows] == [2.0, 3.0, 0.0]


async def test_token_ids_and_images(write, tmp_path):
    overlong = {"type": "length/overlong", "max_tokens": 4, "buffer": 2}
    path = write(
        {"completion": "abcd", "completion_ids": [1, 2, 3]},
        {"completion": ["a", "b"], "completion_ids": [[1], [1, 2, 3, 4]]},
        {"completion": "abcd"},
    )
    rows = await score(overlong, path)
    assert [r["reward"] for r in rows] == [-0.5, 0.0, -1.0, None]
    Image.new("RGB", (100, 50)).save(tmp_path / "a.png")
    path = write({"images": ["a.png"], "completion": "[0,0,0.5,1]", "answer": [0, 0, 50, 50]})
    iou = {"type": "vision/iou", "space": "unit", "gold_space": "pixels"}
    assert [r["reward"] for r in await score(iou, path)] == [1.0]


async def test_faults_are_rows(write):
    rows = await score("vision/count", write(*[{"completion": "3", "answer": "many"}] * 40))
    assert {(r["reward"], r["status"]) for r in rows} == {(None, "raised")}
    assert rows[0]["reason"] == "ValueError: answer 'many' is not a count"
    assert summarize_scores(rows)["mean"] is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", ":2: not JSON"),
        ("[1]", ":2: expected a JSON object, got list"),
        ({"prompt": "q"}, ":2: completion: missing"),
        ({"completion": 3}, ":2: completion: expected a text"),
        ({"completion": []}, ":2: completion: an empty list"),
        ({"completion": "a", "completion_ids": "ab"}, ":2: completion_ids: expected one list"),
        ({"completion": ["a"], "completion_ids": [1]}, ":2: completion_ids: expected one list"),
        ({"completion": "a", "messages": [{"role": "user"}]}, ":2: messages: expected a text"),
        ({"completion": "a", "prompt": 3}, ":2: prompt: expected a text"),
        ({"completion": "a", "meta": 3}, ":2: meta: expected an object"),
        ({"completion": "a", "task": 3}, ":2: task: expected a text"),
        ({"completion": "a", "images": ["no.png"]}, ":2: images: no file"),
        ({"completion": "a", "images": ["rows.jsonl"]}, "is no readable image"),
        ({"completion": "a", "images": [3]}, ":2: images: expected paths"),
        ({"completion": "a", "group": 1, "answer": 5}, ":2: answer: differs from line 1"),
    ],
)
def test_bad_rows_name_line_and_key(write, row, message):
    path = write({"completion": "a", "group": 1, "answer": 4}, row)
    with pytest.raises(DataError, match=message):
        list(read_groups(path))


def test_bad_files(write, tmp_path):
    with pytest.raises(DataError, match="no rows"):
        list(read_groups(write("", "")))
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(read_groups(tmp_path / "absent.jsonl"))
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        list(read_groups(tmp_path / "binary.jsonl"))
