"""The page as a file: what its pieces hold, for whole, partial and strange runs."""

from __future__ import annotations

import base64
import gzip
import json
import re

import pytest

from trainer import cli
from trainer.errors import DataError
from trainer.page.build import write_page
from trainer.yaml import dump_recipe, load_recipe


@pytest.fixture
def folder(tmp_path):
    """A run folder of two steps with two groups each; the first has a picture."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: demo\ndescription: </script><b>x\nsteps: 5\nmodel: tiny_vision\npolicy: vision_lm\n"
        "prompts: synthetic/shapes\nreward: {type: vision/iou, space: unit}\n"
    )
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "config.resolved.yaml").write_text(dump_recipe(load_recipe(recipe)[0]))
    row = {"id": "x", "task": None, "answer": [0, 0, 0.5, 1], "status": "ok", "scored": "ok"}
    rollouts = [
        row
        | {"step": step, "group": 2 * step + g, "member": m, "prompt": f"[image] where {step}?"}
        | {"reply": "</script>\u2028[0,0,1,1]", "reward": 0.5 * m, "length": 3}
        | {"parts": {"iou": 0.25, "late": 1.0} if step == 2 else {"iou": None}}
        for step in (1, 2)
        for g in (0, 1)
        for m in (0, 1)
    ]
    rollouts[1] |= {"reward": None, "scored": "raised", "reason": "ValueError: x"}
    span = {"span": 1, "ends": "AQEB", "advantage": 0.5, "logprob": 0.0}
    traces = [
        {"step": 1, "group": 2, "pictures": ["h"], "rollouts": [{"spans": [span]}, {"spans": []}]},
        {"step": 2, "group": 5, "pictures": ["gone"], "rollouts": [{"spans": []}] * 2},
    ]
    rows = {
        "rollouts": rollouts,
        "traces": traces,
        "images": [{"step": 1, "hash": "h", "width": 40, "height": 20, "data": "AAAA"}],
        "metrics": [{"step": s, "reward/mean": None if s == 2 else 0.5} for s in (1, 2)],
        "timings": [{"step": 1, "time/train": 1.0}],
    }
    for name, items in rows.items():
        lines = (json.dumps(item) + "\n" for item in items)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return folder


def pieces(path):
    text = path.read_text(encoding="utf-8")
    found = re.findall(r'<script type="text/plain" id="(\w+)">([^<]*)</script>', text)
    return {name: json.loads(gzip.decompress(base64.b64decode(data))) for name, data in found}


def test_every_rollout_is_in_the_index_and_in_a_piece(folder):
    page = write_page(folder)
    assert page == folder / "page.html"
    held = pieces(page)
    index = held["index"]
    assert index["groups"]["step"] == [1, 1, 2, 2]
    assert index["groups"]["serial"] == [2, 3, 4, 5]
    assert index["groups"]["snippet"] == ["where 1?", "where 1?", "where 2?", "where 2?"]
    assert index["members"]["reward"] == [0.0, None, 0.0, 0.5, 0.0, 0.5, 0.0, 0.5]
    assert index["names"]["scored"] == ["ok", "raised"]
    assert index["members"]["scored"] == [0, 1, 0, 0, 0, 0, 0, 0]
    assert index["parts"] == {"iou": [None] * 4 + [0.25] * 4, "late": [None] * 4 + [1.0] * 4}
    assert index["metrics"] == {"step": [1, 2], "reward/mean": [0.5, None]}
    text = held["text0"][index["groups"]["text"][0][1]]
    assert text["members"][0]["reply"] == "</script>\u2028[0,0,1,1]"
    assert text["members"][1]["reason"] == "ValueError: x"
    assert text["gold"] == [[0, 0, 5000, 10000]]
    assert text["members"][0]["places"] == [[0, 0, 10000, 10000]]
    assert index["groups"]["trace"] == [[0, 0], None, None, [0, 1]]
    assert held["trace0"][0][0]["spans"][0]["advantage"] == 0.5
    assert held["picture0"] == ["AAAA"]
    assert index["images"] == {"h": [0, 0, 40, 20]}


def test_a_picture_that_is_not_there_is_not_named(folder):
    held = pieces(write_page(folder))
    text = held["text0"][held["index"]["groups"]["text"][3][1]]
    assert text["images"] == []
    assert "gold" not in text


def test_nothing_of_the_run_becomes_markup(folder):
    text = write_page(folder).read_text(encoding="utf-8")
    assert "<title>demo · cohort</title>" in text
    assert "<b>x" not in text
    assert text.count("<script>") == 1
    assert "http" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL).replace(
        "http-equiv", ""
    )


def test_a_run_that_has_only_begun(folder):
    for path in folder.glob("*.jsonl"):
        path.unlink()
    index = pieces(write_page(folder))["index"]
    assert index["groups"] == {}
    assert index["metrics"] == {}


def test_where_the_page_goes(folder, tmp_path, capsys):
    assert cli.main(["show", str(folder)]) == 0
    assert f"page: {folder.resolve() / 'page.html'}" in capsys.readouterr().out
    elsewhere = tmp_path / "there.html"
    assert cli.main(["show", str(folder), "--html", str(elsewhere)]) == 0
    assert elsewhere.read_bytes()[:15] == b"<!doctype html>"
    (folder / "page.html").unlink()
    assert cli.main(["show", str(folder), "--no-html"]) == 0
    assert "page:" not in capsys.readouterr().out.splitlines()[-1]
    assert not (folder / "page.html").exists()
    assert write_page(folder, tmp_path) == tmp_path / "page.html"


def test_no_run_and_no_place(folder, tmp_path):
    with pytest.raises(DataError, match="not a run folder"):
        write_page(tmp_path)
    with pytest.raises(DataError, match="--html PATH"):
        write_page(folder, tmp_path / "missing" / "page.html")
    assert not list(tmp_path.glob("**/*.part"))
