from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from trainer.errors import MissingService
from trainer.models.pretrained import Pretrained
from trainer.ops.bmas import bmas, match_both_ways
from trainer.rewards.text.bmas import Bmas
from trainer.types import ScoreStatus

TINY = Path(__file__).parents[3] / "configs" / "model" / "tiny_text"


def f(rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_the_cards_numbers():
    given, right = f([[1, 0, 0], [1, 1, 0], [0, 0, 2]]), f([[1, 0, 0], [0, 1, 0]])
    assert match_both_ways(given, right) == pytest.approx((0.569036, 0.853553), abs=1e-6)
    assert bmas(given, right) == pytest.approx(0.711294, abs=1e-6)
    assert bmas(given, right, "harmonic") == pytest.approx(0.682843, abs=1e-6)
    repeated = f([[1, 0, 0]] * 5)
    assert match_both_ways(repeated, right) == (1, 0.5)
    assert bmas(repeated, right) == 0.75
    assert bmas(f([]).reshape(0, 3), right) == bmas(right, f([]).reshape(0, 3), "harmonic") == 0


def context():
    model = Pretrained(path=str(TINY))
    return SimpleNamespace(model=model, renderer=model.renderer())


async def graded(replies, make_replies, answer="a red cat", **fields):
    reward = Bmas(**fields)
    async with reward.open(context()):
        return await reward.score(make_replies(replies, answer=answer), None)


async def test_with_a_real_model(make_replies):
    replies = [f"<answer>{text}</answer>" for text in ("a red cat", "tac der a", "zzz", "")]
    same, shuffled, other, empty = await graded([*replies], make_replies)
    assert same.value == pytest.approx(1)
    assert shuffled.value == pytest.approx(1)  # it does not see order
    assert other.value < 0.9
    assert same.parts == {"forward": pytest.approx(1), "backward": pytest.approx(1)}
    assert (empty.value, empty.status) == (0.0, ScoreStatus.OK)
    (untagged,) = await graded(["a red cat"], make_replies)
    assert (untagged.value, untagged.status) == (0.0, ScoreStatus.UNPARSABLE)
    (lenient,) = await graded(["a red cat"], make_replies, require_tag=False)
    assert lenient.value == pytest.approx(1)


async def test_switches(make_replies):
    replies = ["<answer>zq</answer>"]
    (raw,) = await graded(replies, make_replies, floor=-1)
    (centred,) = await graded(replies, make_replies, centre=True, floor=-1)
    assert centred.value != pytest.approx(raw.value)
    (stopped,) = await graded(["<answer>a!!</answer>"], make_replies, answer="a", stop_tokens=["!"])
    assert stopped.value == pytest.approx(1)
    (best,) = await graded(["<answer>x</answer>"], make_replies, answer=["qqq", "x"])
    assert best.value == pytest.approx(1)


async def test_without_a_row_or_a_model(make_replies):
    (none,) = await graded(["<answer>x</answer>"], make_replies, answer=None)
    assert none.status is ScoreStatus.NOT_APPLICABLE
    with pytest.raises(MissingService, match="policy's embeddings"):
        await Bmas().score(make_replies(["x"], answer="y"), None)


async def test_the_table_is_a_frozen_copy(make_replies):
    reward = Bmas()
    async with reward.open(context()):
        assert not reward.embedded("a").requires_grad
        assert reward.embedded("a").shape == (1, reward.embedded("b").shape[1])
