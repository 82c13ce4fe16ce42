"""Saved value heads: one number per hidden state, beside the weights of the model they belong to.

They lie in a folder of their own, because programs that serve a model read every weight file that
stands beside its configuration.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.ops.merging import gathered

HEAD = "value_head/model.safetensors"
"""Where an exported model has its head: `weight` f[1, D], `bias` f[1]."""
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_WEIGHTS, _SCORE, _WRITES = "weights.safetensors", "score.safetensors", "ForCausalLM"
_CLASSES = ("TokenClassification", "SequenceClassification")


def head_tensors(head: nn.Module) -> dict[str, Tensor]:
    """Copies on the CPU; in a sharded run every process must call it."""
    return {name: gathered(t.detach()).cpu().clone() for name, t in head.state_dict().items()}


def save_head(tensors: dict[str, Tensor], folder: Path) -> None:
    """Into the folder of an exported model."""
    from safetensors.torch import save_file

    path = folder / HEAD
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})


def saved_head(find: Callable[[str], Path | None]) -> dict[str, Tensor] | None:
    """The head of a model whose file of some name is `find(name)`, None where there is none.

    Reads what `save_head` wrote, or the layer `score` of a transformers checkpoint for token or
    sequence classification: with one label as it is; with two as the logit of the second less that
    of the first, so that sigmoid(value) is the softmax's probability of the second. Raises
    ValueError for more labels or another layer.
    """
    from safetensors.torch import load_file

    own = find(HEAD)
    if own is not None:
        return load_file(own)
    config = find("config.json")
    named = json.loads(config.read_text()).get("architectures") if config else None
    kind = (named or [""])[0]
    if not kind.endswith(_CLASSES):
        return None
    found = _read(find, ("score.weight", "score.bias"))
    weight = found.get("score.weight")
    if weight is None or len(weight) > 2:
        what = "no layer `score`" if weight is None else f"{len(weight)} labels"
        raise ValueError(
            f"{kind} with {what}: a value head is one number, or the difference of two labels; "
            "train a head with a stage of your own instead"
        )
    weight = weight.float()
    bias = found.get("score.bias", torch.zeros(len(weight))).float()
    if len(weight) == 2:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    return {"weight": weight, "bias": bias}


def _read(find: Callable[[str], Path | None], names: tuple[str, ...]) -> dict[str, Tensor]:
    """Those of the named tensors that a checkpoint of one or several files has."""
    from safetensors import safe_open

    index = find(_INDEX)
    places = json.loads(index.read_text())["weight_map"] if index else dict.fromkeys(names, _SINGLE)
    found = {}
    for name in names:
        path = find(places[name]) if name in places else None
        if path is None:
            continue
        with safe_open(path, "pt") as file:
            if name in file.keys():  # noqa: SIM118 (not a dict)
                found[name] = file.get_tensor(name)
    return found


@contextmanager
def as_classifier(model: str) -> Iterator[str]:
    """A folder that transformers and vLLM read as a model for sequence classification with one
    label: `model` itself, unless it was saved with a head of ours. Then one of links, with another
    configuration and the head as layer `score`; gone when it is left. Raises ValueError for a model
    that is no plain language model."""
    from safetensors.torch import load_file, save_file

    source = Path(model).absolute()
    if not (source / HEAD).is_file():
        yield model
        return
    config = json.loads((source / "config.json").read_text())
    (kind,) = config.get("architectures") or [""]
    if not kind.endswith(_WRITES):
        raise ValueError(f"{model}: a {kind} with a value head; only language models can be served")
    config["architectures"] = [kind.removesuffix(_WRITES) + "ForSequenceClassification"]
    config |= {"num_labels": 1, "id2label": {"0": "value"}, "label2id": {"value": 0}}
    head = {f"score.{name}": tensor for name, tensor in load_file(source / HEAD).items()}
    with tempfile.TemporaryDirectory(prefix="cohort-classifier-") as name:
        folder = Path(name)
        for path in source.iterdir():
            if path.is_file() and path.name not in ("config.json", _INDEX):
                # transformers would not look into the index beside a file of the usual name
                target = _WEIGHTS if path.name == _SINGLE else path.name
                (folder / target).symlink_to(path)
        (folder / "config.json").write_text(json.dumps(config))
        save_file(head, folder / _SCORE, metadata={"format": "pt"})
        (folder / _INDEX).write_text(json.dumps(_with(source, dict.fromkeys(head, _SCORE))))
        yield name


def _with(folder: Path, more: dict[str, str]) -> dict[str, Any]:
    """The index of a checkpoint, and of some tensors more."""
    from safetensors import safe_open

    if (folder / _INDEX).is_file():
        index = json.loads((folder / _INDEX).read_text())
    else:
        with safe_open(folder / _SINGLE, "pt") as file:
            index = {"metadata": {}, "weight_map": dict.fromkeys(file.keys(), _WEIGHTS)}
    return index | {"weight_map": index["weight_map"] | more}
