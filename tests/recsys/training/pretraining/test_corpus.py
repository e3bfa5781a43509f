from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_shop
from tokenizers import Tokenizer, models

from recsys.config import Pretrain, Recipe, recipe_from_dict
from recsys.errors import RecipeError
from recsys.preparation.prepared import Prepared
from recsys.text.pretrained import TOKENIZER, locate
from recsys.training.pretraining.corpus import Corpus, Vocabulary, mask_tokens

CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Prepared]:
    pretrain = {"epochs": 1, "batch_size": 8, "max_tokens": 32, "held_out": 0.2}
    shop = tiny_shop(tmp_path_factory.mktemp("corpus"), pretrain=pretrain)
    return shop.recipe, shop.prepared


@pytest.fixture(scope="module")
def corpus(shop: tuple[Recipe, Prepared]) -> Corpus:
    return Corpus.read(*shop)


class TestMasking:
    tokens = np.tile(np.concatenate([[CLS], np.arange(10, 30), [SEP, 0, 0]]), (500, 1))
    present = tokens != 0
    vocabulary = Vocabulary(9, np.arange(10, 60))

    def mask(self, seed: int = 0, fraction: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        return mask_tokens(self.tokens, self.present, self.vocabulary, fraction, rng)

    def test_of_the_chosen_most_are_hidden_some_replaced_some_left(self) -> None:
        read, chosen = self.mask()
        assert (chosen.sum(1) == 3).all()
        hidden = read[chosen] == self.vocabulary.mask
        left = read[chosen] == self.tokens[chosen]
        assert hidden.mean() == pytest.approx(0.8, abs=0.03)
        assert left.mean() == pytest.approx(0.1, abs=0.03)
        assert np.isin(read[chosen & (read != 9)], self.vocabulary.words).all()

    def test_nothing_else_changes(self) -> None:
        read, chosen = self.mask()
        assert (read[~chosen] == self.tokens[~chosen]).all()
        assert not chosen[np.isin(self.tokens, [CLS, SEP, 0])].any()

    def test_a_text_has_at_least_one_if_it_has_a_word(self) -> None:
        tokens = np.array([[CLS, 12, SEP], [CLS, SEP, 0]])
        rng = np.random.default_rng(0)
        _, chosen = mask_tokens(tokens, tokens != 0, self.vocabulary, 0.15, rng)
        assert chosen.sum(1).tolist() == [1, 0]

    def test_the_same_seed_hides_the_same(self) -> None:
        assert (self.mask(1)[0] == self.mask(1)[0]).all()
        assert (self.mask(1)[1] != self.mask(2)[1]).any()


class TestCorpus:
    def test_texts_are_either_learned_or_measure(self, corpus: Corpus) -> None:
        both = np.concatenate([corpus.learned, corpus.held_out])
        assert sorted(both) == list(range(len(corpus.tokens)))
        assert 0 < len(corpus.held_out) < len(corpus.learned)

    def test_no_event_of_the_heads_window_or_later_is_read(
        self, shop: tuple[Recipe, Prepared], corpus: Corpus
    ) -> None:
        _, prepared = shop
        head = prepared.summary["cuts_us"]["head"]
        assert len(corpus.timestamps) and corpus.timestamps.max() < head
        users = prepared.users()
        met = users.item_rows[users.timestamps < head]
        assert set(corpus.text_rows) <= set(prepared.catalogue.text_rows[met])

    def test_held_out_texts_stand_in_no_sentence(self, corpus: Corpus) -> None:
        assert not np.isin(corpus.text_rows, corpus.held_out).any()

    def test_a_sentence_is_the_texts_in_the_order_of_their_moments(self, corpus: Corpus) -> None:
        long = replace(corpus, settings=corpus.settings.model_copy(update={"max_tokens": 10_000}))
        rng = np.random.default_rng(0)
        for number in range(corpus.num_sentences):
            own = slice(corpus.offsets[number], corpus.offsets[number + 1])
            rows, times = corpus.text_rows[own], corpus.timestamps[own]
            assert len(rows) > 1 and (np.diff(times) >= 0).all()
            found = long.sentence(number, rng).tolist()
            assert found[0] == CLS and found.count(CLS) == 1
            ends = np.flatnonzero(np.array(found) == SEP)
            parts = [found[a + 1 : b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
            for moment in np.unique(times):
                inside = times == moment
                expected = sorted(corpus.tokens[row][1:-1].tolist() for row in rows[inside])
                assert sorted(parts[: inside.sum()]) == expected
                parts = parts[inside.sum() :]

    def test_a_moment_has_another_order_each_time(self) -> None:
        tokens = [np.array([CLS, 10 + row, SEP], dtype=np.int32) for row in range(6)]
        settings = Pretrain(max_tokens=32)
        rows = np.arange(6)
        one = Corpus(
            settings, 0, 0, 1, tokens, Vocabulary(9, rows + 10), rows, rows[:0], rows,
            np.zeros(6, dtype=np.int64), np.array([0, 6]),
        )  # fmt: skip
        rng = np.random.default_rng(0)
        assert len({one.sentence(0, rng).tobytes() for _ in range(5)}) > 1

    def test_sentences_are_no_longer_than_asked(self, corpus: Corpus) -> None:
        rng = np.random.default_rng(0)
        for number in range(corpus.num_sentences):
            sentence = corpus.sentence(number, rng)
            assert len(sentence) <= corpus.settings.max_tokens
            assert sentence[-1] == SEP

    def test_an_epoch_reads_every_learned_text_once(self, corpus: Corpus) -> None:
        alone = replace(corpus, settings=corpus.settings.model_copy(update={"behaviour_share": 0}))
        read = [tuple(ids) for batch in alone.batches(1) for ids in batch]
        assert sorted(read) == sorted(tuple(corpus.tokens[row]) for row in corpus.learned)

    def test_workers_take_as_many_steps_and_differ_in_texts(
        self, shop: tuple[Recipe, Prepared]
    ) -> None:
        # More than there are history shards: some have no behaviour.
        parts = [Corpus.read(*shop, rank=rank, world=6) for rank in range(6)]
        assert min(part.num_sentences for part in parts) == 0
        epochs = [list(part.batches(1)) for part in parts]
        assert {len(epoch) for epoch in epochs} == {parts[0].num_steps}
        assert sum(part.num_sentences for part in parts) == Corpus.read(*shop).num_sentences

    def test_an_epoch_is_the_same_again_and_the_next_is_another(self, corpus: Corpus) -> None:
        def flat(epoch: int) -> list[int]:
            return [int(each) for batch in corpus.batches(epoch) for ids in batch for each in ids]

        assert flat(1) == flat(1)
        assert flat(1) != flat(2)

    def test_a_worker_without_behaviour_reads_texts(self, corpus: Corpus) -> None:
        nobody = replace(corpus, offsets=corpus.offsets[:1])
        assert len(list(nobody.batches(1))) == corpus.num_steps


class TestMistakes:
    def test_a_tokenizer_without_a_mask_is_refused(self, tmp_path: Path) -> None:
        Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")).save(str(tmp_path / TOKENIZER))
        with pytest.raises(RecipeError, match="knows no") as error:
            Vocabulary.of(tmp_path, [])
        assert error.value.field == "model.language_model"

    def test_sentences_longer_than_the_model_reads_are_refused(
        self, shop: tuple[Recipe, Prepared]
    ) -> None:
        recipe, prepared = shop
        raw = recipe.resolved()
        raw["pretrain"]["max_tokens"] = 65
        with pytest.raises(RecipeError, match="at most 64") as error:
            Corpus.read(recipe_from_dict(raw), prepared)
        assert error.value.field == "pretrain.max_tokens"

    @pytest.mark.parametrize("share", [0.0001, 0.9999])
    def test_a_share_that_leaves_nothing_is_refused(
        self, shop: tuple[Recipe, Prepared], share: float
    ) -> None:
        recipe, prepared = shop
        raw = recipe.resolved()
        raw["pretrain"]["held_out"] = share
        with pytest.raises(RecipeError, match="of 40 texts") as error:
            Corpus.read(recipe_from_dict(raw), prepared)
        assert error.value.field == "pretrain.held_out"

    def test_special_tokens_are_no_words(self, language_folder: Path) -> None:
        vocabulary = Vocabulary.of(locate(str(language_folder)), [np.array([CLS, 8, SEP])])
        assert vocabulary.words.tolist() == [8]
