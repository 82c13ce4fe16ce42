from __future__ import annotations

import json

import numpy as np


def draw(build, n, **fields):
    stream = build({"type": "synthetic/clips"} | fields).stream(0)
    return [next(stream) for _ in range(n)]


def test_the_shape_is_there_from_start_to_end(build):
    for prompt in draw(build, 20, frames=6):
        parts = prompt.messages[0]["content"]
        frames = [np.asarray(part["image"]) for part in parts if part["type"] == "image"]
        assert [frame.shape for frame in frames] == [(28, 28, 3)] * 6
        start, end = prompt.meta["span"]
        assert prompt.answer == [start / 6, end / 6]
        assert prompt.meta["video_length"] == 6
        first = frames[start]
        there = [np.array_equal(frame, first) for frame in frames]
        assert there == [start <= i < end for i in range(6)]
        color, shape = prompt.meta["target"].split()
        assert parts[-1]["text"] == f" when is the {color} {shape} there ?"
        assert parts[0]["text"] == "0 "


def test_the_teacher_is_off_by_a_little(build):
    off = []
    for prompt in draw(build, 200):
        said = prompt.meta["demonstration"]
        times = json.loads(said.split("<answer>")[1].removesuffix("</answer>"))
        assert said.startswith(f"<think>{prompt.meta['target']}</think>")
        start, end = int(times["start_time"]), int(times["end_time"])
        assert 0 <= start < end <= 8
        off.append(end - prompt.meta["span"][1])
    assert {-2, -1, 0, 1, 2} <= set(off)
    exact = draw(build, 20, teacher_jitter=0)
    assert all(f'"{p.meta["span"][0]}"' in p.meta["demonstration"] for p in exact)
