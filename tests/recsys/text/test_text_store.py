from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import Shop

from recsys.errors import DataError
from recsys.features.item_to_item import Relations
from recsys.model.language import load_language_model
from recsys.schema import Col
from recsys.text.text_store import TextStore, pad_tokens, ragged_index

STORE = TextStore(
    np.arange(12, dtype=np.float16).reshape(6, 2),
    np.array([0, 3, 3, 4, 6]),
    np.zeros((4, 2), dtype=np.float32),
    Relations.none(4).content_similarity,
)


def test_texts_are_padded_to_the_longest_of_the_batch() -> None:
    hidden, mask = STORE.batch(np.array([3, 2]))
    assert hidden.tolist() == [[[8, 9], [10, 11]], [[6, 7], [0, 0]]]
    assert mask.tolist() == [[True, True], [True, False]]
    assert STORE.batch(np.array([0]))[0].shape == (1, 3, 2)


def test_a_batch_of_nothing() -> None:
    hidden, mask = STORE.batch(np.zeros(0, dtype=np.int64))
    assert hidden.shape == (0, 1, 2)
    assert mask.shape == (0, 1)


@pytest.mark.parametrize("size", [1, 3, 10])
@pytest.mark.parametrize("asked", [None, [1, 3], []])
def test_by_length_gives_every_text_once_short_ones_first(
    size: int, asked: list[int] | None
) -> None:
    given = None if asked is None else np.array(asked, dtype=np.int64)
    parts = list(STORE.by_length(size, given))
    rows = np.concatenate(parts).tolist() if parts else []
    assert sorted(rows) == (list(range(4)) if asked is None else asked)
    assert all(len(part) <= size for part in parts)
    lengths = np.diff(STORE.offsets)[rows]
    assert (np.diff(lengths) >= 0).all()


def test_ragged_index() -> None:
    row, column = ragged_index(np.array([2, 0, 3]))
    assert row.tolist() == [0, 0, 2, 2, 2]
    assert column.tolist() == [0, 1, 0, 1, 2]


def test_tokens_are_padded_with_zeros() -> None:
    tokens, mask = pad_tokens([np.array([5, 6], dtype=np.int32), np.array([7], dtype=np.int32)])
    assert tokens.tolist() == [[5, 6], [7, 0]]
    assert mask.tolist() == [[True, True], [True, False]]
    assert pad_tokens([])[0].shape == (0, 1)


def test_without_a_store_the_jobs_that_make_it_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text store") as error:
        TextStore.open(tmp_path)
    assert "recsys train" in error.value.fix


def test_the_store_holds_what_the_language_model_says_of_each_text(shop: Shop) -> None:
    model = shop.recipe.model
    language = load_language_model(model).eval()
    texts = shop.prepared.catalogue.texts[Col.tokens]
    assert shop.store.num_texts == len(texts)
    for row in range(0, len(texts), 7):
        tokens, mask = pad_tokens([np.asarray(texts[row], dtype=np.int32)])
        hidden, stored_mask = shop.store.batch(np.array([row]))
        assert torch.equal(mask, stored_mask)
        with torch.no_grad():
            expected = language.lower(tokens, mask)
            vector = language.upper(expected, mask)[0]
        torch.testing.assert_close(hidden, expected, atol=2e-3, rtol=2e-3)  # kept in 16 bits
        torch.testing.assert_close(torch.tensor(shop.store.vectors[row]), vector)
