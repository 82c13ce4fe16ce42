"""Sentence vectors of a tiny BERT that is made here, against the formula."""

from __future__ import annotations

import json
import math

import pytest
import torch

from trainer.errors import ConfigError
from trainer.ops.encoder import Encoder, pooled

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "red",
    "cat",
    "dog",
    "sat",
    "query",
    ":",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import BertConfig, BertModel, BertTokenizer

    path = tmp_path_factory.mktemp("encoder")
    BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16,
        )
        BertModel(config).save_pretrained(path)
    return path


async def vectors(folder, texts, **fields):
    encoder = await Encoder(path=str(folder), **fields).open()
    return await encoder.embed(texts)


async def test_it_is_the_mean_of_the_last_hidden_state(folder):
    from transformers import AutoModel, AutoTokenizer

    (found,) = await vectors(folder, ["a red cat"])
    tokens = AutoTokenizer.from_pretrained(folder)("a red cat", return_tensors="pt")
    assert tokens["input_ids"].tolist() == [[2, 5, 6, 7, 3]]
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0]
    expected = torch.nn.functional.normalize(hidden.mean(0), dim=0)
    assert found == pytest.approx(expected.tolist(), abs=1e-6)
    assert math.fsum(x * x for x in found) == pytest.approx(1)


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
async def test_neighbours_and_batches_do_not_matter(folder, pooling):
    texts = ["cat", "a red dog sat", "", "cat", "a"]
    together = await vectors(folder, texts, pooling=pooling)
    small = await vectors(folder, texts, pooling=pooling, batch_size=1)
    for one, other in zip(together, small, strict=True):
        assert one == pytest.approx(other, abs=1e-6)
    assert together[0] == together[3] != together[1]


async def test_long_texts_are_cut_and_prefixes_count(folder):
    long, longer, short = await vectors(folder, ["cat " * 14, "cat " * 500, "cat"])
    assert long == pytest.approx(longer)
    assert long != pytest.approx(short)
    (prefixed,) = await vectors(folder, ["cat"], prefix="query: ")
    (written,) = await vectors(folder, ["query: cat"])
    assert prefixed == pytest.approx(written)
    assert await vectors(folder, []) == []


def test_pooling_by_hand():
    hidden = torch.tensor([[[1.0], [3.0], [9.0]], [[9.0], [2.0], [4.0]], [[5.0], [5.0], [5.0]]])
    mask = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 0]]).bool()
    assert pooled(hidden, mask, "mean").flatten().tolist() == [2, 3, 0]
    assert pooled(hidden, mask, "first").flatten().tolist() == [1, 2, 0]
    assert pooled(hidden, mask, "last").flatten().tolist() == [3, 4, 0]


def saved(folder, tmp_path, modules, pooling):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    kinds = [{"type": f"sentence_transformers.models.{k}", "path": f"{i}_{k}"} for i, k in modules]
    (copy / "modules.json").write_text(json.dumps(kinds))
    (copy / "1_Pooling").mkdir()
    (copy / "1_Pooling/config.json").write_text(json.dumps(pooling))
    return copy


async def test_the_models_own_pooling(folder, tmp_path):
    modules = [(0, "Transformer"), (1, "Pooling"), (2, "Normalize")]
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    own = await vectors(saved(folder, tmp_path, modules, pooling), ["a red cat"])
    assert own == await vectors(folder, ["a red cat"], pooling="first")
    assert own != await vectors(folder, ["a red cat"])


@pytest.mark.parametrize(
    ("modules", "pooling", "message"),
    [
        ([(0, "Transformer"), (1, "Pooling"), (2, "Dense")], {}, "a module 'Dense'"),
        ([(0, "Transformer"), (1, "Pooling")], {"pooling_mode_max_tokens": True}, "max_tokens"),
        (
            [(0, "Transformer"), (1, "Pooling")],
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "mean, first",
        ),
    ],
)
async def test_what_we_cannot_compute_is_refused(folder, tmp_path, modules, pooling, message):
    with pytest.raises(ConfigError, match=message):
        await Encoder(path=str(saved(folder, tmp_path, modules, pooling))).open()


async def test_no_such_model(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match=r"scoring\.encoder\.path: cannot read"):
            await Encoder(path=str(path)).open()
