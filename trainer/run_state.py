"""What a checkpoint of a run holds: everything that decides the next number."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainer.checkpoint import (
    load_tensors,
    random_state,
    read_manifest,
    restore_random_state,
    save_tensors,
    writing,
)
from trainer.errors import CheckpointError

if TYPE_CHECKING:
    from trainer.policies.base import Policy
    from trainer.run import Run


def save_run(run: Run, own: dict[str, Any]) -> None:
    """Collective: every process writes `own`, rank 0 writes the shared parts and commits."""
    step, distributed, checkpoints = run.step, run.distributed, run.checkpoints
    draft = checkpoints.folder / f".step_{step:06d}"
    if distributed.is_main:
        checkpoints.begin(step)
    distributed.barrier("checkpoint folder")
    with writing(draft):
        torch.save(own, draft / f"rank_{distributed.rank:05d}.pt")
        if distributed.is_main:
            save_tensors(run.recipe.policy.trained(), draft / "policy.safetensors")
            torch.save(_shared_state(run), draft / "trainer.pt")
            export = run.recipe.checkpoint.export
            if export == "every" or (export == "last" and step == run.recipe.steps):
                run.recipe.policy.export(draft / "model")
    distributed.barrier("checkpoint files")
    if distributed.is_main:
        checkpoints.commit(step, draft, distributed.world)
    distributed.barrier("checkpoint")


def load_run(run: Run, step: int) -> None:
    """Restores everything `save_run` wrote; raises `CheckpointError` for another world size."""
    folder = run.checkpoints.path(step)
    world = read_manifest(folder)["world"]
    if world != run.distributed.world:
        raise CheckpointError(
            f"{folder} was written by {world} processes, this run has {run.distributed.world}; "
            f"launch {world} processes (prompt positions and random states are per process)"
        )
    load_policy(run.recipe.policy, folder)
    shared = _read(folder / "trainer.pt")
    run.learner.load_state_dict(shared["learner"])
    if run.reference is not None:
        run.reference.load_state_dict(shared["reference"])
    run.recipe.reward.load_state_dict(shared["reward"])
    own = _read(folder / f"rank_{run.distributed.rank:05d}.pt")
    run.stream.load_state_dict(own["stream"])
    run.replay = run.buffer.load_state_dict(own["buffer"]) + own["replay"]
    run.signal.load_state_dict(own["signal"])
    run.step = step
    restore_random_state(own["random"])


def load_policy(policy: Policy, folder: Path) -> None:
    """Only the trained weights, for evaluation. Raises `CheckpointError` naming a tensor that is
    missing or of another shape."""
    saved = load_tensors(folder / "policy.safetensors")
    current = policy.trained()
    if wrong := sorted(saved.keys() ^ current.keys()):
        raise CheckpointError(f"{folder}: policy.safetensors and the model differ in {wrong[0]!r}")
    with torch.no_grad():
        for name, tensor in current.items():
            if tensor.shape != saved[name].shape:
                raise CheckpointError(
                    f"{folder}: {name!r} has shape {tuple(saved[name].shape)}, the model's is "
                    f"{tuple(tensor.shape)}"
                )
            tensor.copy_(saved[name])


def load_judges(run: Run, folder: Path) -> None:
    """What rewards judge with besides rules, for evaluation: what co-trained ones had learned, and
    the reference."""
    shared = _read(folder / "trainer.pt")
    run.recipe.reward.load_state_dict(shared["reward"])
    if run.reference is not None and shared["reference"] is not None:
        run.reference.load_state_dict(shared["reference"])


def own_state(run: Run) -> dict[str, Any]:
    """What differs between processes. Taken on the event loop, so that collectors cannot change
    one part while another is read."""
    return {
        "random": random_state(),
        "stream": run.stream.state_dict(),
        "buffer": run.buffer.state_dict(),
        "replay": run.replay,
        "signal": run.signal.state_dict(),
    }


def _shared_state(run: Run) -> dict[str, Any]:
    return {
        "learner": run.learner.state_dict(),
        "reference": run.reference.state_dict() if run.reference is not None else None,
        "reward": run.recipe.reward.state_dict(),
    }


def _read(path: Path) -> Any:
    # Written by this program into the run's own folder; it holds rollouts, not only tensors.
    return torch.load(path, map_location="cpu", weights_only=False)
