"""Local files: formats, columns, images, split, resume, and one clear error for each bad input."""

from __future__ import annotations

import io
from itertools import islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from trainer.errors import DataError

ROWS = [{"question": f"q{i}", "answer": i, "source": "s"} for i in range(10)]


def take(stream, n):
    return list(islice(iter(lambda: next(stream), None), n))


def png(color="red", size=(3, 2)):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_row_becomes_a_prompt(build, write):
    source = build({"type": "files", "path": write(ROWS[:1]), "task": "maths"})
    prompt = next(source.stream(0))
    assert prompt.messages == ({"role": "user", "content": "q0"},)
    assert (prompt.id, prompt.answer, prompt.task, prompt.serial) == ("0", 0, "maths", 0)
    assert prompt.meta == ROWS[0]
    assert source.columns() == {"answer", "task", "meta.question", "meta.answer", "meta.source"}


@pytest.mark.parametrize("suffix", ["json", "csv", "parquet"])
def test_other_formats_give_the_same(build, tmp_path, suffix):
    import pandas

    path = tmp_path / f"rows.{suffix}"
    frame = pandas.DataFrame([{"question": "q, 1", "answer": "a"}, {"question": "2", "answer": ""}])
    if suffix == "json":
        frame.to_json(path, orient="records")
    else:
        getattr(frame, f"to_{suffix}")(path, index=False)
    stream = build({"type": "files", "path": str(path), "shuffle": False}).stream(0)
    assert [(p.messages[0]["content"], p.answer) for p in take(stream, 2)] == [
        ("q, 1", "a"),
        ("2", ""),
    ]


def test_globs_and_lists_follow_each_other(build, write, tmp_path):
    for name in ("b", "a"):
        write([{"question": name}], f"{name}.jsonl")
    write([{"question": "c"}], "c.json.jsonl")
    paths = [str(tmp_path / "[ab].jsonl"), str(tmp_path / "c.json.jsonl")]
    stream = build({"type": "files", "path": paths, "shuffle": False}).stream(0)
    assert [p.messages[0]["content"] for p in take(stream, 4)] == ["a", "b", "c", "a"]


def test_usual_names_are_found_and_others_are_mapped(build, write):
    path = write([{"problem": "p", "ground_truth": "g", "x": "other"}])
    assert next(build({"type": "files", "path": path}).stream(0)).answer == "g"
    mapped = {"type": "files", "path": path, "column_of": {"question": "x", "id": "problem"}}
    prompt = next(build(mapped).stream(0))
    assert (prompt.id, prompt.messages[0]["content"]) == ("p", "other")


def test_a_prompt_column_may_hold_messages(build, write):
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    path = write([{"prompt": messages}])
    assert next(build({"type": "files", "path": path}).stream(0)).messages == tuple(messages)


def test_an_epoch_has_every_row_once_and_the_next_another_order(build, write):
    prompts = take(build({"type": "files", "path": write(ROWS)}).stream(1), 30)
    epochs = [[p.id for p in prompts[i : i + 10]] for i in (0, 10, 20)]
    assert all(sorted(epoch) == sorted(map(str, range(10))) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [p.serial for p in prompts] == list(range(30))


def test_the_seed_decides_the_order_but_not_the_split(build, write):
    source = build({"type": "files", "path": write(ROWS), "holdout": 3})
    first, second = ([p.id for p in take(source.stream(seed), 7)] for seed in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(0, 45), holdout=st.integers(0, 9))
def test_resume_at_any_point(build, write, resumes, n, holdout):
    resumes(build({"type": "files", "path": write(ROWS), "holdout": holdout}), n)


@pytest.mark.parametrize(("holdout", "count"), [(3, 3), (0.2, 2), (0, 0)])
def test_train_and_heldout_share_nothing(build, write, holdout, count):
    source = build({"type": "files", "path": write(ROWS), "holdout": holdout})
    kept = {p.messages[0]["content"] for p in source.heldout()}
    trained = {p.messages[0]["content"] for p in take(source.stream(0), 10 - count)}
    assert (len(kept), len(trained), kept & trained) == (count, 10 - count, set())
    assert [p.serial for p in source.heldout()] == [-1, -2, -3][:count]
    assert all(p.id.startswith("heldout/") for p in source.heldout())
    assert len(source.heldout(1)) == min(1, count)


def test_heldout_files_of_their_own(build, write):
    path, other = write(ROWS), write([{"question": "h", "answer": 1}], "heldout.jsonl")
    source = build({"type": "files", "path": path, "holdout_path": other})
    assert [(p.id, p.messages[0]["content"]) for p in source.heldout()] == [("heldout/0", "h")]
    assert len({p.id for p in take(source.stream(0), 10)}) == 10


def test_limit_takes_the_first_rows(build, write):
    source = build({"type": "files", "path": write(ROWS), "limit": 2})
    assert {p.id for p in take(source.stream(0), 10)} == {"0", "1"}


def test_a_checkpoint_of_other_data_is_refused(build, write):
    state = build({"type": "files", "path": write(ROWS)}).stream(0).state_dict()
    stream = build({"type": "files", "path": write(ROWS[:4], "less.jsonl")}).stream(0)
    with pytest.raises(DataError, match=r"made with 10 training rows, the data now has 4"):
        stream.load_state_dict(state)


def test_images_by_path_are_read_when_drawn(build, write, tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    path = write([{"question": "q", "image": "a.png"}, {"question": "t", "image": None}])
    source = build({"type": "files", "path": path, "shuffle": False})
    first, second = take(source.stream(0), 2)
    image, text = first.messages[0]["content"]
    assert (image["image"].size, image["image"].getpixel((0, 0))) == ((3, 2), (255, 0, 0))
    assert text == {"type": "text", "text": "q"}
    assert first.meta["image"] == "a.png"
    assert second.messages[0]["content"] == "t"
    assert "images" in source.columns()


@pytest.mark.parametrize("stored", [png(), {"bytes": png(), "path": None}, [png(), png("blue")]])
def test_images_as_bytes_stay_out_of_meta(build, tmp_path, stored):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    rows = [{"question": "q", "images": stored}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    prompt = next(build({"type": "files", "path": str(path)}).stream(0))
    images = [p["image"] for p in prompt.messages[0]["content"] if p["type"] == "image"]
    assert [image.size for image in images] == [(3, 2)] * (2 if isinstance(stored, list) else 1)
    assert b"PNG" not in repr(prompt.meta).encode()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("gone.png", r"rows.jsonl:1: there is no image .*gone.png; paths are relative to"),
        ("text.png", r"rows.jsonl:1: .*text.png is not an image"),
        ("cut.png", r"rows.jsonl:1: .*cut.png is broken"),
        (7, r"rows.jsonl:1: an image must be a path.*got int"),
    ],
)
def test_a_bad_image_names_row_and_path(build, write, tmp_path, image, message):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(png(size=(64, 64))[:-30])
    path = write([{"question": "q", "image": image}])
    stream = build({"type": "files", "path": path}).stream(0)
    with pytest.raises(DataError, match=message):
        next(stream)


def test_a_missing_file_names_the_nearest(build, write):
    path = write(ROWS).replace("rows", "row")
    with pytest.raises(DataError, match=r"there is no file .*row.jsonl.*did you mean .*rows.jsonl"):
        build({"type": "files", "path": path}).stream(0)


def test_a_folder_is_refused(build, tmp_path):
    with pytest.raises(DataError, match="is a folder; name its files"):
        build({"type": "files", "path": str(tmp_path)}).stream(0)


def test_an_unknown_suffix_is_refused(build, tmp_path):
    (tmp_path / "rows.txt").write_text("q")
    with pytest.raises(DataError, match=r"cannot read '.txt'; one of: .jsonl"):
        build({"type": "files", "path": str(tmp_path / "rows.txt")}).stream(0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"question": "q"}\n\n{"question": \n', r"a.jsonl:3: not JSON"),
        ("a.jsonl", "[1]\n", r"a.jsonl:1: a row must be an object \{...\}, got list"),
        ("a.jsonl", "\n", r"a.jsonl: there are no rows"),
        ("a.json", '[{"question": 1},\n x]', r"a.json:2: not JSON"),
        ("a.json", '{"question": "q"}', r"a.json: must hold a list of objects"),
        ("a.csv", "question,answer\n1,2\n1,2,3\n", r"a.csv:3: the row has another number of col"),
        ("a.parquet", "no", r"a.parquet: not a parquet file"),
    ],
)
def test_malformed_files_name_the_place(build, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        build({"type": "files", "path": str(tmp_path / name)}).stream(0)


def test_a_missing_question_names_the_nearest_column(build, write):
    path = write([{"questoin": "q", "answer": 1}])
    with pytest.raises(DataError, match=r"rows.jsonl:1: no column question.*nearest: 'questoin'"):
        build({"type": "files", "path": path}).columns()


def test_a_column_that_is_asked_for_must_be_there(build, write):
    config = {"type": "files", "path": write(ROWS), "column_of": {"answer": "anser"}}
    with pytest.raises(
        DataError, match=r"'anser' \(prompts.column_of.answer\); did you mean 'answ"
    ):
        build(config).columns()


def test_a_row_without_the_column_is_named(build, write):
    path = write([ROWS[0], {"question": "q"}])
    stream = build({"type": "files", "path": path, "shuffle": False}).stream(0)
    next(stream)
    with pytest.raises(DataError, match=r"rows.jsonl:2: no column 'answer' \(answer\)"):
        next(stream)


def test_an_empty_question_is_named(build, write):
    stream = build({"type": "files", "path": write([{"question": ""}])}).stream(0)
    with pytest.raises(DataError, match=r"rows.jsonl:1: the question must be text or messages"):
        next(stream)


def test_a_template_error_names_the_row(build, write, tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    path = write([{"question": "<image> <image>", "image": "a.png"}])
    stream = build({"type": "files", "path": path}).stream(0)
    with pytest.raises(DataError, match=r"rows.jsonl:1: 2 image part"):
        next(stream)


@pytest.mark.parametrize("holdout", [10, 0.99])
def test_everything_held_out_is_refused(build, write, holdout):
    with pytest.raises(DataError, match="no row is left to train on"):
        build({"type": "files", "path": write(ROWS), "holdout": holdout}).stream(0)


def test_a_share_of_one_or_more_is_refused(build, write):
    with pytest.raises(ValidationError, match="a share must be under 1"):
        build({"type": "files", "path": write(ROWS), "holdout": 2.0})


def test_dump_and_load_are_equal(build, write):
    source = build({"type": "files", "path": write(ROWS), "template": "boxed", "holdout": 0.1})
    assert build(source.model_dump()) == source


def test_the_answer_may_stand_after_a_mark(build, write):
    rows = [{"question": "q", "answer": "2 + 2 = 4 #### 4 \n"}, {"question": "q", "answer": "4"}]
    source = build({"type": "files", "path": write(rows), "answer_after": "####", "shuffle": False})
    stream = source.stream(0)
    assert next(stream).answer == "4"
    with pytest.raises(DataError, match=r"row 2|:2.*answer_after"):
        next(stream)


def test_a_dot_names_what_is_inside_a_column(build, write):
    rows = [
        {"question": "q", "reward_model": {"ground_truth": 7}},
        {"question": "q", "reward_model": {}},
    ]
    column_of = {"answer": "reward_model.ground_truth"}
    config = {"type": "files", "path": write(rows), "column_of": column_of, "shuffle": False}
    source = build(config)
    assert "answer" in source.columns()
    stream = source.stream(0)
    assert next(stream).answer == 7
    with pytest.raises(DataError, match=r"rows.jsonl:2: no column 'reward_model.ground_truth'"):
        next(stream)
    with pytest.raises(DataError, match=r"no column 'reward.ground_truth'"):
        build(config | {"column_of": {"answer": "reward.ground_truth"}}).columns()
