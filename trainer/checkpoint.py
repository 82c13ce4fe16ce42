"""Checkpoints that are either whole or not there.

    checkpoints/step_000020/
        manifest.json       step, world size, versions, and the SHA-256 of every other file
        policy.safetensors  trained weights (with LoRA: the adapter)
        trainer.pt          optimiser, reference, co-trained rewards
        rank_00000.pt       per process: random states, prompt position, buffer, counters
        model/              loads with transformers' `from_pretrained` (see `checkpoint.export`)

A checkpoint is written to a hidden folder, every file is flushed to the disk, the manifest comes
last, then one rename makes it visible. A crash at any moment leaves the previous one untouched.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from trainer.errors import CheckpointError

FORMAT = 1
_NEARLY_FULL = 2**16
"""Free bytes under which a failed write is put down to a full disk."""


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, folder: Path, keep: int, note: Callable[[str], None] = lambda text: None):
        self.folder = folder / "checkpoints"
        self.keep = keep
        self.note = note

    def path(self, step: int) -> Path:
        return self.folder / f"step_{step:06d}"

    def steps(self) -> list[int]:
        """Steps with a visible checkpoint, whole or not, in order."""
        found = self.folder.glob("step_*") if self.folder.is_dir() else ()
        return sorted(int(p.name[5:]) for p in found if p.name[5:].isdigit())

    def latest(self) -> int | None:
        """Newest step whose files all match the manifest; damaged ones are named and skipped.

        Raises `CheckpointError` if there are checkpoints but all of them are damaged: starting
        anew by itself would throw the run away.
        """
        steps = self.steps()
        damage = []
        for step in reversed(steps):
            problem = self.damage(step)
            if problem is None:
                return step
            damage.append(problem)
            self.note(f"skipped a damaged checkpoint: {problem}")
        if steps:
            raise CheckpointError(
                "every checkpoint of this run is damaged:\n  " + "\n  ".join(damage) + "\n"
                "Restore one from a copy, or start anew with --fresh"
            )
        return None

    def damage(self, step: int) -> str | None:
        """What is wrong with a checkpoint, or None if it is whole."""
        folder = self.path(step)
        try:
            manifest = read_manifest(folder)
        except CheckpointError as error:
            return str(error)
        for name, expected in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                return f"{path} is missing"
            if path.stat().st_size != expected["bytes"]:
                return f"{path} has {path.stat().st_size} bytes, expected {expected['bytes']}"
            if _sha256(path) != expected["sha256"]:
                return f"{path} does not match its SHA-256"
        return None

    def begin(self, step: int) -> Path:
        """An empty hidden folder to write the parts of `step` into."""
        draft = self.folder / f".step_{step:06d}"
        with writing(draft):
            for abandoned in self.folder.glob(".step_*"):
                shutil.rmtree(abandoned, ignore_errors=True)
            draft.mkdir(parents=True)
        return draft

    def commit(self, step: int, draft: Path, world: int) -> None:
        """Hashes, flushes and renames the draft; then removes checkpoints beyond `keep`."""
        with writing(draft):
            files = {}
            for path in sorted(p for p in draft.rglob("*") if p.is_file()):
                _flush(path)
                files[path.relative_to(draft).as_posix()] = {
                    "sha256": _sha256(path),
                    "bytes": path.stat().st_size,
                }
            manifest = {
                "format": FORMAT,
                "step": step,
                "world": world,
                "torch": torch.__version__,
                "files": files,
            }
            (draft / "manifest.json").write_text(json.dumps(manifest, indent=1))
            for path in (
                draft / "manifest.json",
                *(p for p in draft.rglob("*") if p.is_dir()),
                draft,
            ):
                _flush(path)
            final = self.path(step)
            shutil.rmtree(final, ignore_errors=True)
            draft.rename(final)
            _flush(self.folder)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.path(old))

    def remove_all(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises `CheckpointError` if it is missing, unreadable or of another format."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        if manifest["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {manifest['format']}, this version reads {FORMAT}"
            )
        if missing := {"files", "world", "step"} - manifest.keys():
            raise CheckpointError(f"{path} has no {', '.join(sorted(missing))}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error
    return manifest


class writing:
    """Turns an OSError into a `CheckpointError` that says what to do; removes the draft."""

    def __init__(self, draft: Path):
        self.draft = draft

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        free = shutil.disk_usage(_existing(self.draft)).free
        # torch and safetensors hide the operating system's error behind one of their own.
        full = "No space left" in str(error) or getattr(error, "errno", None) == errno.ENOSPC
        full = full or (free < _NEARLY_FULL and not isinstance(error, CheckpointError))
        if not full and not isinstance(error, OSError):
            return
        shutil.rmtree(self.draft, ignore_errors=True)
        advice = (
            f"the disk is full ({free / 2**20:.1f} MiB were free); make room or lower "
            "checkpoint.keep"
            if full
            else f"{error}; check that the folder may be written"
        )
        raise CheckpointError(
            f"cannot write {self.draft}: {advice}. Earlier checkpoints are untouched: the same "
            "command continues from them"
        ) from error


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """safetensors; tensors are moved to the CPU and made contiguous."""
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def random_state() -> dict[str, Any]:
    """Of python, numpy, torch and, where present, every CUDA device."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def seed_everything(seed: int, rank: int) -> None:
    """Python, numpy and torch; each rank has its own stream (dropout), models do not use it."""
    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)
    torch.manual_seed(seed + rank)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.resolve().parents) if p.exists())
