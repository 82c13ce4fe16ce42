"""Row files: reading them back, and cutting what a resumed run will log again."""

from __future__ import annotations

import pytest

from trainer.monitors.base import evaluation_figures, prompt_text, read_rows, truncate_after


def test_rows_after_the_step_and_cut_off_lines_go(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(
        '{"a": 1, "step": 1}\n{"a": 2, "step": 2}\n{"a": 3, "step": 3}\n{"a": 4, "st'
    )
    rollouts = tmp_path / "rollouts.jsonl"
    rollouts.write_text('{"step": 2}\n{"step": 2}\n{"step": 3}\n')
    other = tmp_path / "notes.txt"
    other.write_text("kept")
    truncate_after(tmp_path, 2)
    assert metrics.read_text() == '{"a": 1, "step": 1}\n{"a": 2, "step": 2}\n'
    assert rollouts.read_text() == '{"step": 2}\n{"step": 2}\n'
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.jsonl", "rollouts.jsonl", "notes.txt"}


def test_nothing_to_cut_leaves_the_file_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    before = path.stat()
    truncate_after(tmp_path, 5)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_read_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert list(read_rows(path)) == []
    path.write_text('{"step": 1}\n{"step":')
    assert list(read_rows(path)) == [{"step": 1}]


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], "q"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "a"),
        ([{"role": "system", "content": "only"}], "only"),
        (
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q"}]}],
            "[image] q",
        ),
    ],
)
def test_prompt_text(messages, text):
    assert prompt_text(messages) == text


def test_evaluation_figures(make_table):
    figures = evaluation_figures(make_table(0, 0.5, greedy=False))
    assert figures == {
        "evaluation/sampled_mean": 0.5,
        "evaluation/sampled_low": 0.45,
        "evaluation/sampled_high": 0.55,
        "evaluation/pass@1": 0.5,
        "evaluation/pass@4": 0.5,
        "evaluation/maj@4": 0.5,
    }
