from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recsys.errors import RecipeError
from recsys.text.pretrained import (
    CONFIG,
    EMBEDDED,
    TOKENIZER,
    WEIGHTS,
    fingerprint,
    hidden_size,
    load_tokenizer,
    locate,
    tokenize,
)


def test_the_embedded_model_lies_where_it_should() -> None:
    assert hidden_size(locate(EMBEDDED)) == 384


def test_a_folder_is_taken_as_it_is(language_folder: Path) -> None:
    assert locate(str(language_folder)) == language_folder
    assert hidden_size(language_folder) == 32


@pytest.mark.parametrize("missing", [WEIGHTS, CONFIG, TOKENIZER])
def test_a_folder_must_be_complete(language_folder: Path, tmp_path: Path, missing: str) -> None:
    folder = tmp_path / "language"
    shutil.copytree(language_folder, folder)
    (folder / missing).unlink()
    with pytest.raises(RecipeError, match=missing) as error:
        locate(str(folder))
    assert error.value.field == "model.language_model"


def test_the_fingerprint_follows_the_weights(language_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "language"
    shutil.copytree(language_folder, folder)
    assert fingerprint(folder) == fingerprint(language_folder)
    other = tmp_path / "other"
    shutil.copytree(language_folder, other)
    weights = bytearray((other / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (other / WEIGHTS).write_bytes(weights)
    assert fingerprint(other) != fingerprint(language_folder)


def test_tokens_are_never_padded_and_cut_with_their_end(language_folder: Path) -> None:
    short, long = tokenize(load_tokenizer(language_folder, 5), ["cup", "red green blue cup pen"])
    assert len(short) == 3
    assert len(long) == 5
    assert (short[0], short[-1]) == (long[0], long[-1])
    assert tokenize(load_tokenizer(language_folder, 5), []) == []
