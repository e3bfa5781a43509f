from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.catalogue import (
    ITEMS_FILE,
    TEXTS_FILE,
    Catalogue,
    build_catalogue,
    check_items,
    item_text,
    texts_of,
)
from recsys.schema import ITEMS, TEXT_FIELDS, Col
from recsys.text.pretrained import load_tokenizer


def items(*rows: dict[str, object]) -> pl.DataFrame:
    schema = pa.schema([field.with_nullable(True) for field in ITEMS])
    return pl.DataFrame(pa.Table.from_pylist(list(rows), schema))


def item(item_id: str | None, title: str | None, **more: object) -> dict[str, object]:
    return {Col.item: item_id, Col.title: title, **more}


class TestText:
    def test_fields_in_order_blanks_left_out(self) -> None:
        fields = {"title": " red \n cup", "brand": "", "tags": None, "category": "cup"}
        assert item_text(fields, TEXT_FIELDS) == "red cup, cup"
        assert item_text(fields, ["category", "title"]) == "cup, red cup"
        assert item_text(fields, ["brand", "tags"]) == ""

    # What one side takes for white space the other must too: service and catalogue share vectors.
    @given(
        st.lists(
            st.none()
            | st.text(st.sampled_from("aé ,\t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u2028\u3000\u200b")),
            min_size=3,
            max_size=3,
        )
    )
    def test_one_item_and_a_table_of_items_give_the_same_text(
        self, values: list[str | None]
    ) -> None:
        order = TEXT_FIELDS[:3]
        table = pl.DataFrame(
            {n: pl.Series([v], dtype=pl.String) for n, v in zip(order, values, strict=True)}
        )
        (text,) = texts_of(table, order)
        assert text == item_text(dict(zip(order, values, strict=True)), order)


class TestCheck:
    def test_each_bad_item_has_its_reason(self) -> None:
        good, bad = check_items(
            items(
                item("a", "cup"),
                item(None, "cup"),
                item("", "cup"),
                item("b", " ", description="\t"),
                item("a", "lamp"),
                item("c", None, brand="acme"),
            ),
            TEXT_FIELDS,
        )
        assert good.select(Col.item, Col.text).rows() == [("a", "cup"), ("c", "acme")]
        assert bad[Col.reason].to_list() == [
            "null_item_id", "null_item_id", "no_text", "duplicate_item_id",
        ]  # fmt: skip

    @pytest.mark.parametrize("item_id", ["a\tb", "\x00", "ü" * 257])
    def test_an_id_that_no_request_can_name_is_unfit(self, item_id: str) -> None:
        _, bad = check_items(items(item(item_id, "cup"), item("ü" * 256, "cup")), TEXT_FIELDS)
        assert bad.select(Col.item, Col.reason).rows() == [(item_id, "unfit_item_id")]

    def test_only_the_recipes_fields_make_a_text(self) -> None:
        good, bad = check_items(items(item("a", None, brand="acme")), ["title"])
        assert good.is_empty()
        assert bad[Col.reason].to_list() == ["no_text"]


TABLE = items(
    item("b", "red cup"),
    item("10", "green lamp", price=2.5),
    item("a", "red  cup"),
    item("9", "a new item"),
)


@pytest.fixture
def built(language_folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    good, _ = check_items(TABLE, TEXT_FIELDS)
    return build_catalogue(good, load_tokenizer(language_folder, 16))


class TestBuild:
    def test_items_are_numbered_by_id_and_equal_texts_stand_once(
        self, built: tuple[pl.DataFrame, pl.DataFrame]
    ) -> None:
        numbered, texts = built
        assert numbered.select(Col.item_row, Col.item, Col.text_row).rows() == [
            (0, "10", 1), (1, "9", 0), (2, "a", 2), (3, "b", 2),
        ]  # fmt: skip
        assert texts.select(Col.text_row, Col.text).rows() == [
            (0, "a new item"), (1, "green lamp"), (2, "red cup"),
        ]  # fmt: skip
        assert numbered[Col.content_hash].n_unique() == 3
        assert numbered.columns == [Col.item_row, *ITEMS.names, Col.text_row, Col.content_hash]

    def test_numbers_do_not_depend_on_the_order_given(
        self, built: tuple[pl.DataFrame, pl.DataFrame], language_folder: Path
    ) -> None:
        good, _ = check_items(TABLE, TEXT_FIELDS)
        tokenizer = load_tokenizer(language_folder, 16)
        for seed in range(5):
            order = random.Random(seed).sample(range(good.height), good.height)
            again = build_catalogue(good[order], tokenizer)
            assert all(new.equals(old) for new, old in zip(again, built, strict=True))

    def test_texts_are_cut_at_the_most_tokens(self, language_folder: Path) -> None:
        good, _ = check_items(items(item("a", "red green blue cup")), TEXT_FIELDS)
        (whole,) = build_catalogue(good, load_tokenizer(language_folder, 16))[1][
            Col.tokens
        ].to_list()
        (cut,) = build_catalogue(good, load_tokenizer(language_folder, 4))[1][Col.tokens].to_list()
        assert len(whole) == 6  # begin, four words, end
        assert cut == [*whole[:3], whole[-1]]

    def test_it_reads_back_as_it_was_written(
        self, built: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path
    ) -> None:
        for table, name in zip(built, (ITEMS_FILE, TEXTS_FILE), strict=True):
            table.write_parquet(tmp_path / name)
        catalogue = Catalogue.load(tmp_path)
        assert (catalogue.num_items, catalogue.num_texts) == (4, 3)
        assert catalogue.text_rows.tolist() == [1, 0, 2, 2]
        np.testing.assert_array_equal(catalogue.prices, [2.5, np.nan, np.nan, np.nan])
        assert catalogue.fingerprint == Catalogue(*built).fingerprint

    @pytest.mark.parametrize(
        ("change", "same"),
        [({Col.price: 9.0}, True), ({Col.title: "blue cup"}, False), ({Col.item: "c"}, False)],
    )
    def test_the_fingerprint_follows_ids_and_texts(
        self, change: dict[str, object], same: bool, language_folder: Path
    ) -> None:
        tokenizer = load_tokenizer(language_folder, 16)

        def fingerprint(row: dict[str, object]) -> str:
            good, _ = check_items(items(item("a", "pen"), row), TEXT_FIELDS)
            return Catalogue(*build_catalogue(good, tokenizer)).fingerprint

        row = item("b", "red cup")
        assert (fingerprint(row | change) == fingerprint(row)) is same
