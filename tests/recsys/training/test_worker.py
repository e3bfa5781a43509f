from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import Shop, tiny_shop
from workers import RecordingStore, chunks, make_worker

from recsys.config import target_codes
from recsys.data.histories import UserEvents
from recsys.errors import RecipeError
from recsys.features.windows import TrainingBatch
from recsys.schema import Col
from recsys.text.text_store import TextStore
from recsys.training.worker import Worker


class TestSteps:
    def test_the_loss_falls(self, shop: Shop) -> None:
        mine, users = make_worker(shop), shop.prepared.users()
        losses = [mine.train_epoch(chunks(users, 8), 40) for _ in range(5)]
        assert losses[-1] < losses[0] - 0.1
        assert mine.step == 5 * -(-len(users) // 8)

    def test_low_rank_updates_move_the_texts_and_nothing_else_of_the_language_model(
        self, shop: Shop
    ) -> None:
        lora = {"tuning": "lora", "last_n": 1}
        changed = {"model": shop.recipe.model.model_copy(update=lora)}
        mine = make_worker(shop._replace(recipe=shop.recipe.model_copy(update=changed)))
        before = {name: value.clone() for name, value in mine.model.language.state_dict().items()}
        vectors = mine.cache.vectors.clone()
        for _ in range(2):
            mine.train_epoch(chunks(shop.prepared.users(), 8), 20)
        mine.scorer("head")
        moved = {
            name
            for name, value in mine.model.language.state_dict().items()
            if not torch.equal(value, before[name])
        }
        assert moved
        assert all("lora_" in name for name in moved)
        assert not torch.allclose(mine.cache.vectors, vectors)

    def test_training_ranks_better(self, shop: Shop) -> None:
        mine, users = make_worker(shop), shop.prepared.users()
        codes = target_codes(shop.recipe)
        _, head = shop.prepared.questions("head", codes)
        _, valid = shop.prepared.questions("valid", codes)
        before = mine.validate(valid)[0]
        for _ in range(4):
            mine.train_epoch(chunks(users, 8), 40)
        mine.fit_head(mine.head_examples(head))
        after, count = mine.validate(valid)
        assert count == len(valid)
        assert after > before

    def test_nothing_after_the_head_cut_is_learned_from(self, shop: Shop) -> None:
        mine, users = make_worker(shop), shop.prepared.users()
        late = users.timestamps >= mine.cut_us
        assert late.any()
        changed = UserEvents(
            users.user_ids,
            np.where(late, 0, users.item_rows).astype(np.int32),
            users.event_codes,
            users.timestamps,
            users.baskets,
            users.offsets,
        )
        ours, theirs = mine.batch(users), mine.batch(changed)
        assert ours is not None and theirs is not None
        assert torch.equal(ours.target_items, theirs.target_items)
        assert torch.equal(ours.windows.item_rows, theirs.windows.item_rows)

    def test_every_text_of_a_batch_is_encoded_once(self, shop: Shop) -> None:
        mine = make_worker(shop, fresh_texts_per_step=None)
        store = mine.store = RecordingStore.of(shop.store)
        batch = mine.batch(shop.prepared.users())
        assert batch is not None
        mine.train_step(batch, 10)
        encoded = np.concatenate(store.asked)
        assert len(encoded) == len(np.unique(encoded))
        # All 40 items are drawn as candidates; their texts are all different.
        assert set(encoded.tolist()) == set(range(shop.prepared.catalogue.num_texts))

    def test_a_budget_bounds_what_is_encoded(self, shop: Shop) -> None:
        mine = make_worker(shop, fresh_texts_per_step=5)
        batch = mine.batch(shop.prepared.users())
        assert batch is not None
        mine.train_step(batch, 10)
        ages = mine.cache.age(np.arange(shop.prepared.catalogue.num_texts), 1)
        before = torch.from_numpy(np.array(shop.store.vectors))
        changed = (mine.cache.vectors != before).any(dim=1)
        assert int(changed.sum()) == 5
        assert (ages <= 1).all()

    def test_a_frozen_language_model_stays_as_it_is(self, tmp_path: Path) -> None:
        frozen = tiny_shop(tmp_path, model={"tuning": "frozen", "dim": 16, "num_heads": 2})
        mine = make_worker(frozen)
        before = {k: v.clone() for k, v in mine.model.language.state_dict().items()}
        mine.train_epoch(chunks(frozen.prepared.users(), 16), 10)
        after = mine.model.language.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_two_runs_give_the_same_weights(self, shop: Shop) -> None:
        users = shop.prepared.users()

        def weights() -> dict[str, torch.Tensor]:
            mine = make_worker(shop)
            mine.train_epoch(chunks(users, 16), 10)
            return mine.model.state_dict()

        first, second = weights(), weights()
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_a_diverged_training_names_the_learning_rate(self, shop: Shop) -> None:
        mine = make_worker(shop)
        with torch.no_grad():
            mine.model.users.enter.weight.fill_(float("nan"))
        with pytest.raises(RecipeError, match="diverged") as error:
            mine.train_epoch(chunks(shop.prepared.users(), 8), 10)
        assert error.value.field == "train.learning_rate"

    def test_scores_never_come_from_vectors_that_are_too_old(self, shop: Shop) -> None:
        """After a resume the cache holds the untouched model's vectors."""
        mine, num_texts = make_worker(shop), shop.prepared.catalogue.num_texts
        mine.train_epoch(chunks(shop.prepared.users(), 8), 10)
        mine.cache.put(np.arange(num_texts), torch.full((num_texts, 32), 9.0), mine.step)
        mine.cache.expire(mine.step)
        mine.scorer("valid")
        hidden, mask = shop.store.batch(np.arange(num_texts))
        with torch.no_grad():
            expected = mine.model.language(hidden, mask)
        torch.testing.assert_close(mine.cache.vectors, expected, rtol=1e-4, atol=1e-5)
        assert len(mine.cache.stale(mine.step)) == 0

    def test_the_cache_holds_what_the_model_says_without_dropout(self, shop: Shop) -> None:
        mine = make_worker(shop, fresh_texts_per_step=None, learning_rate=1e-9)
        batch = mine.batch(shop.prepared.users())
        assert batch is not None
        mine.train_step(batch, 10)
        torch.testing.assert_close(
            mine.cache.vectors, torch.from_numpy(np.array(shop.store.vectors)), rtol=0.02, atol=2e-3
        )


class TestEveryTextOnce:
    """With a budget for all of a batch's texts it computes what the plain way does."""

    def test_loss_and_gradient_are_those_of_encoding_every_occurrence(self, shop: Shop) -> None:
        model = shop.recipe.model.model_copy(update={"dropout": 0.0, "id_dropout": 0.0})
        shop = shop._replace(recipe=shop.recipe.model_copy(update={"model": model}))
        # Clipped gradients could differ in length unseen.
        options = {"fresh_texts_per_step": None, "clip_norm": 1e9}
        once, plain = make_worker(shop, **options), make_worker(shop, **options)
        store = TextStore(  # not rounded to half precision
            np.concatenate([_lower(plain, row)[0] for row in range(shop.store.num_texts)]),
            shop.store.offsets, shop.store.vectors, shop.store.content_similarity,
        )  # fmt: skip
        once.store = store
        batch = once.batch(next(chunks(shop.prepared.users(), 3)))
        assert batch is not None
        expected = _plain_loss(plain, batch)
        expected.backward()
        assert once.train_step(batch, 10) == pytest.approx(float(expected.detach()), rel=1e-5)
        wanted = dict(plain.model.named_parameters())
        compared = []
        for name, parameter in once.model.named_parameters():
            if not parameter.requires_grad:
                continue
            assert parameter.grad is not None and wanted[name].grad is not None, name
            scale = float(wanted[name].grad.abs().max())
            torch.testing.assert_close(
                parameter.grad, wanted[name].grad, rtol=1e-3, atol=1e-4 * scale + 1e-8, msg=name
            )
            compared.append(scale)
        assert sum(scale > 1e-6 for scale in compared) > 20


def _lower(mine: Worker, text_row: int) -> torch.Tensor:
    """[1, L, H] one text alone at the split, from its tokens."""
    tokens = mine.prepared.catalogue.texts[Col.tokens][text_row].to_list()
    ids = torch.tensor([tokens])
    return mine.model.language.lower(ids, torch.ones_like(ids, dtype=torch.bool))


def _plain_loss(mine: Worker, batch: TrainingBatch) -> torch.Tensor:
    """Every event, target and candidate encoded alone, each time it occurs; softmax over all."""
    mine.model.train()
    mine.model.language.eval()

    def encoded(item: int) -> torch.Tensor:
        hidden = _lower(mine, int(mine.text_rows[item]))
        text = mine.model.language(hidden, torch.ones(hidden.shape[:2], dtype=torch.bool))
        return mine.model.items(text, mine.item_rows[[item]])[0]

    windows = batch.windows
    events = torch.stack(
        [torch.stack([encoded(int(item)) for item in row]) for row in windows.item_rows]
    )
    states = mine.model.users(events, windows)
    scale, prior = mine.model.log_scale.exp(), mine.model.popularity
    share = torch.from_numpy(mine.log_share)
    candidates = torch.stack([encoded(item) for item in range(len(share))])
    losses = []
    for state, item in zip(batch.target_states, batch.target_items, strict=True):
        also = batch.target_items[batch.target_states == state]
        others = torch.ones(len(share), dtype=torch.bool)
        others[also] = False
        own = scale * states[state] @ encoded(int(item)) + prior * share[item]
        rest = scale * candidates[others] @ states[state] + prior * share[others]
        losses.append(torch.logsumexp(torch.cat([own[None], rest]), dim=0) - own)
    weights = batch.target_weights
    return (torch.stack(losses) * weights).sum() / weights.sum()


class TestBatchesWithoutTargets:
    def test_users_who_only_look_give_no_batch(self, shop: Shop) -> None:
        users = shop.prepared.users()
        assert make_worker(shop).batch(_lookers(users)) is None

    def test_nobody_gives_no_batch(self, shop: Shop) -> None:
        nobody = next(chunks(shop.prepared.users(), 1)).before(0)
        assert len(nobody) == 0
        assert make_worker(shop).batch(nobody) is None

    def test_they_are_passed_over(self, shop: Shop) -> None:
        mine, users = make_worker(shop), shop.prepared.users()
        asked: list[bool] = []

        def agree(more: bool, loss: float) -> bool:
            asked.append(more)
            return more

        mine.train_epoch([_lookers(users), users, _lookers(users)], 10, agree)
        assert (mine.step, asked) == (1, [True, False])

    def test_a_worker_stops_when_another_has_no_more(self, shop: Shop) -> None:
        mine, users = make_worker(shop), shop.prepared.users()
        mine.train_epoch(chunks(users, 8), 10, lambda more, loss: more and mine.step < 2)
        assert mine.step == 2


def _lookers(users: UserEvents) -> UserEvents:
    """The same users, who never buy."""
    codes = np.zeros_like(users.event_codes)
    return UserEvents(
        users.user_ids, users.item_rows, codes, users.timestamps, users.baskets, users.offsets
    )
