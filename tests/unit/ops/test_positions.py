from __future__ import annotations

import pytest
import torch

from trainer.errors import DataError
from trainer.models.tiny_text import TinyText
from trainer.models.tiny_vision import TinyVision
from trainer.ops.positions import continue_positions, prompt_positions


@pytest.fixture(scope="module")
def vision():
    return TinyVision().load(dtype="float32", attn_implementation="sdpa")


def test_text_counts_from_zero() -> None:
    model = TinyText(hidden=48).load(dtype="float32", attn_implementation="sdpa")
    assert prompt_positions(model, [5, 6, 7], {}).tolist() == [[0, 1, 2]]


def test_image_by_hand(vision) -> None:
    """2 text tokens, an image of 4 x 6 patches (2 x 3 tokens), 2 text tokens."""
    pad = vision.config.image_token_id
    tokens = [20, 21, *[pad] * 6, 22, 23]
    found = prompt_positions(vision, tokens, {"image_grid_thw": torch.tensor([[1, 4, 6]])})
    assert found.tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5, 6],
        [0, 1, 2, 2, 2, 3, 3, 3, 5, 6],
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 6],
    ]
    more = prompt_positions(
        vision, torch.tensor([*tokens, 24, 25]), {"image_grid_thw": torch.tensor([[1, 4, 6]])}
    )
    assert torch.equal(more, torch.cat([found, continue_positions(found, 2)], 1))


def test_continuing_nothing_starts_at_zero() -> None:
    assert continue_positions(torch.empty(3, 0, dtype=torch.long), 2).tolist() == [[0, 1]] * 3
    assert continue_positions(torch.tensor([[0, 1]]), 0).shape == (1, 0)


def test_text_for_a_vision_model(vision) -> None:
    assert prompt_positions(vision, [20, 21], {}).tolist() == [[0, 1]] * 3


@pytest.mark.parametrize(("count", "grid"), [(5, [[1, 4, 6]]), (7, [[1, 4, 6]]), (1, None)])
def test_wrong_number_of_placeholders(vision, count, grid) -> None:
    inputs = {} if grid is None else {"image_grid_thw": torch.tensor(grid)}
    tokens = [20, *[vision.config.image_token_id] * count]
    with pytest.raises(DataError, match=f"a row has {count} image placeholder tokens"):
        prompt_positions(vision, tokens, inputs)
