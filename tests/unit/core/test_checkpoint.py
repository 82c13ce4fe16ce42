import errno

import pytest

from trainer.checkpoint import Checkpoints, writing
from trainer.errors import CheckpointError


def _write(checkpoints, step, content=b"weights"):
    draft = checkpoints.begin(step)
    (draft / "model").mkdir()
    (draft / "model" / "part").write_bytes(content)
    checkpoints.commit(step, draft, world=1)


def test_newest_is_found_and_old_ones_go(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest() is None
    for step in (10, 20, 30):
        _write(checkpoints, step)
    assert checkpoints.steps() == [20, 30]
    assert checkpoints.latest() == 30


@pytest.mark.parametrize("hurt", ["truncate", "flip", "remove", "manifest"])
def test_a_damaged_one_is_named_and_skipped(tmp_path, hurt):
    notes = []
    checkpoints = Checkpoints(tmp_path, keep=2, note=notes.append)
    _write(checkpoints, 1)
    _write(checkpoints, 2)
    part = checkpoints.path(2) / "model" / "part"
    if hurt == "truncate":
        part.write_bytes(b"weig")
    elif hurt == "flip":
        part.write_bytes(b"weighus")
    elif hurt == "remove":
        part.unlink()
    else:
        (checkpoints.path(2) / "manifest.json").write_text('{"format": 1')
    assert checkpoints.latest() == 1
    assert "step_000002" in notes[0]


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    _write(checkpoints, 1)
    (checkpoints.path(1) / "model" / "part").unlink()
    with pytest.raises(CheckpointError, match="--fresh"):
        checkpoints.latest()


def test_a_half_written_one_is_invisible(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    _write(checkpoints, 1)
    (checkpoints.begin(2) / "part").write_bytes(b"half")
    assert checkpoints.latest() == 1


def test_a_newer_format_is_not_read(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    _write(checkpoints, 1)
    (checkpoints.path(1) / "manifest.json").write_text('{"format": 99}')
    assert "format 99" in checkpoints.damage(1)


def test_a_full_disk_is_one_clear_error_and_removes_the_draft(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    _write(checkpoints, 1)
    draft = checkpoints.begin(2)
    with pytest.raises(CheckpointError, match="disk is full") as caught, writing(draft):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "step_000002" in str(caught.value)
    assert not draft.exists()
    assert checkpoints.latest() == 1


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(ValueError, match="not about files"), writing(tmp_path / "draft"):
        raise ValueError("not about files")


def test_a_draft_that_a_crash_left_goes_with_the_next_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    (checkpoints.begin(10) / "part").write_bytes(b"half")
    _write(checkpoints, 15)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step_000015"]
    assert checkpoints.latest() == 15


@pytest.mark.parametrize("text", ['{"format": 1, "files": {}}', "[]", '{"format": 0}'])
def test_a_manifest_that_is_not_ours(tmp_path, text):
    checkpoints = Checkpoints(tmp_path, keep=2)
    _write(checkpoints, 1)
    (checkpoints.path(1) / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        checkpoints.latest()
