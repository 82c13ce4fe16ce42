from __future__ import annotations


def draw(build, n, **fields):
    stream = build({"type": "synthetic/captions"} | fields).stream(0)
    return [next(stream) for _ in range(n)]


def test_one_word_of_the_caption_is_changed(build):
    for prompt in draw(build, 40):
        meta = prompt.meta
        right, told = meta["original_caption"].split(), meta["changed_caption"].split()
        assert sum(a != b for a, b in zip(right, told, strict=True)) == 1
        assert meta["original_caption"] == " and ".join(" ".join(item) for item in meta["items"])
        place = told.index(next(b for a, b in zip(right, told, strict=True) if a != b))
        assert prompt.answer == meta["solution_target"]
        assert prompt.answer in meta["changed_caption"].split(" and ")
        assert told[place] in prompt.answer
        assert meta["solution_original"] in meta["original_caption"].split(" and ")


def test_the_teacher_boxes_some_phrase(build):
    prompts = draw(build, 300, mistakes=0.6)
    boxed = [p.meta["demonstration"].split("{")[1][:-1] for p in prompts]
    right = sum(said == p.answer for said, p in zip(boxed, prompts, strict=True))
    assert 0.5 < right / 300 < 0.7  # 40 %, and one guess in three
    exact = draw(build, 10, mistakes=0)
    for prompt in exact:
        thought = f"<think>{prompt.meta['solution_original']}</think>"
        assert prompt.meta["demonstration"] == f"{thought}\\boxed{{{prompt.answer}}}"
