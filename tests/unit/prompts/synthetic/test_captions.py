from __future__ import annotations


def draw(build, n, **fields):
    stream = build({"type": "synthetic/captions"} | fields).stream(0)
    return [next(stream) for _ in range(n)]


def test_one_word_of_the_caption_is_changed(build):
    for prompt in draw(build, 40):
        meta = prompt.meta
        color, shape = meta["facts"]
        assert meta["original_caption"] == f"color {color} and shape {shape}"
        right, told = (meta[f"{one}_caption"].split(" and ") for one in ("original", "changed"))
        ((before, after),) = [(a, b) for a, b in zip(right, told, strict=True) if a != b]
        assert before.split()[0] == after.split()[0]
        assert prompt.answer == meta["solution_target"] == after
        assert meta["solution_original"] == before


def test_the_teacher_boxes_some_phrase(build):
    prompts = draw(build, 300, mistakes=0.6)
    boxed = [p.meta["demonstration"].split("{")[1][:-1] for p in prompts]
    right = sum(said == p.answer for said, p in zip(boxed, prompts, strict=True))
    assert 0.62 < right / 300 < 0.78  # 40 %, and one guess in two
    for prompt in draw(build, 10, mistakes=0):
        thought = f"<think>{' '.join(prompt.meta['facts'])}</think>"
        assert prompt.meta["demonstration"] == f"{thought}\\boxed{{{prompt.answer}}}"
