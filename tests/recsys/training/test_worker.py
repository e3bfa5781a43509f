from __future__ import annotations

import datetime as dt
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from tiny import (
    Shop,
    day,
    prepare_here,
    store_here,
    tiny_items,
    tiny_recipe,
    tiny_shop,
    user_id,
    write_log,
)
from torch.nn.parallel import DistributedDataParallel

from recsys.config import target_codes
from recsys.data.histories import UserEvents
from recsys.errors import RecipeError
from recsys.features.windows import TrainingBatch
from recsys.schema import Col
from recsys.text.text_store import TextStore
from recsys.training.worker import Worker, build_two_tower, head_examples, tie_order


def worker(shop: Shop, rank: int = 0, world: int = 1, **train: object) -> Worker:
    recipe = shop.recipe.model_copy(update={"train": shop.recipe.train.model_copy(update=train)})
    ranker, item_rows = build_two_tower(recipe, shop.prepared)
    ranker.items.start_from(shop.store.vectors)
    return Worker(recipe, shop.prepared, shop.store, ranker, item_rows, rank, world)


def chunks(users: UserEvents, size: int) -> Iterator[UserEvents]:
    for low in range(0, len(users), size):
        first, last = users.offsets[low], users.offsets[min(low + size, len(users))]
        yield UserEvents(
            users.user_ids[low : low + size],
            users.item_rows[first:last],
            users.event_codes[first:last],
            users.timestamps[first:last],
            users.baskets[first:last],
            users.offsets[low : low + size + 1] - first,
        )


class TestSteps:
    def test_the_loss_falls(self, shop: Shop) -> None:
        mine, users = worker(shop), shop.prepared.users()
        losses = [mine.train_epoch(chunks(users, 8), 40) for _ in range(5)]
        assert losses[-1] < losses[0] - 0.1
        assert mine.step == 5 * -(-len(users) // 8)

    def test_low_rank_updates_move_the_texts_and_nothing_else_of_the_language_model(
        self, shop: Shop
    ) -> None:
        lora = {"tuning": "lora", "last_n": 1}
        changed = {"model": shop.recipe.model.model_copy(update=lora)}
        mine = worker(shop._replace(recipe=shop.recipe.model_copy(update=changed)))
        before = {name: value.clone() for name, value in mine.ranker.language.state_dict().items()}
        vectors = mine.cache.vectors.clone()
        for _ in range(2):
            mine.train_epoch(chunks(shop.prepared.users(), 8), 20)
        mine.scorer("head")
        moved = {
            name
            for name, value in mine.ranker.language.state_dict().items()
            if not torch.equal(value, before[name])
        }
        assert moved
        assert all("lora_" in name for name in moved)
        assert not torch.allclose(mine.cache.vectors, vectors)

    def test_training_ranks_better(self, shop: Shop) -> None:
        mine, users = worker(shop), shop.prepared.users()
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
        mine, users = worker(shop), shop.prepared.users()
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
        mine = worker(shop, fresh_texts_per_step=None)
        rows: list[np.ndarray] = []
        hidden = mine._hidden
        mine._hidden = lambda texts: rows.append(texts) or hidden(texts)  # type: ignore
        batch = mine.batch(shop.prepared.users())
        assert batch is not None
        mine.train_step(batch, 10)
        encoded = np.concatenate(rows)
        assert len(encoded) == len(np.unique(encoded))
        # All 40 items are drawn as candidates; their texts are all different.
        assert set(encoded.tolist()) == set(range(shop.prepared.catalogue.num_texts))

    def test_a_budget_bounds_what_is_encoded(self, shop: Shop) -> None:
        mine = worker(shop, fresh_texts_per_step=5)
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
        mine = worker(frozen)
        before = {k: v.clone() for k, v in mine.ranker.language.state_dict().items()}
        mine.train_epoch(chunks(frozen.prepared.users(), 16), 10)
        after = mine.ranker.language.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_two_runs_give_the_same_weights(self, shop: Shop) -> None:
        users = shop.prepared.users()

        def weights() -> dict[str, torch.Tensor]:
            mine = worker(shop)
            mine.train_epoch(chunks(users, 16), 10)
            return mine.ranker.state_dict()

        first, second = weights(), weights()
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_a_diverged_training_names_the_learning_rate(self, shop: Shop) -> None:
        mine = worker(shop)
        with torch.no_grad():
            mine.ranker.users.enter.weight.fill_(float("nan"))
        with pytest.raises(RecipeError, match="diverged") as error:
            mine.train_epoch(chunks(shop.prepared.users(), 8), 10)
        assert error.value.field == "train.learning_rate"

    def test_scores_never_come_from_vectors_that_are_too_old(self, shop: Shop) -> None:
        """After a resume the cache holds the untouched model's vectors."""
        mine, num_texts = worker(shop), shop.prepared.catalogue.num_texts
        mine.train_epoch(chunks(shop.prepared.users(), 8), 10)
        mine.cache.put(np.arange(num_texts), torch.full((num_texts, 32), 9.0), mine.step)
        mine.cache.expire(mine.step)
        mine.scorer("valid")
        hidden, mask = shop.store.batch(np.arange(num_texts))
        with torch.no_grad():
            expected = mine.ranker.language(hidden, mask)
        torch.testing.assert_close(mine.cache.vectors, expected, rtol=1e-4, atol=1e-5)
        assert len(mine.cache.stale(mine.step)) == 0

    def test_the_cache_holds_what_the_model_says_without_dropout(self, shop: Shop) -> None:
        mine = worker(shop, fresh_texts_per_step=None, learning_rate=1e-9)
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
        once, plain = worker(shop, **options), worker(shop, **options)
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
        wanted = dict(plain.ranker.named_parameters())
        compared = []
        for name, parameter in once.ranker.named_parameters():
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
    return mine.ranker.language.lower(ids, torch.ones_like(ids, dtype=torch.bool))


def _plain_loss(mine: Worker, batch: TrainingBatch) -> torch.Tensor:
    """Every event, target and candidate encoded alone, each time it occurs; softmax over all."""
    mine.ranker.train()
    mine.ranker.language.eval()

    def encoded(item: int) -> torch.Tensor:
        hidden = _lower(mine, int(mine.text_rows[item]))
        text = mine.ranker.language(hidden, torch.ones(hidden.shape[:2], dtype=torch.bool))
        return mine.ranker.items(text, mine.item_rows[[item]])[0]

    windows = batch.windows
    events = torch.stack(
        [torch.stack([encoded(int(item)) for item in row]) for row in windows.item_rows]
    )
    states = mine.ranker.users(
        events, windows.event_codes, windows.gap_us, windows.moments, windows.state_of_event,
        windows.num_states,
    )  # fmt: skip
    scale, prior = mine.ranker.log_scale.exp(), mine.ranker.popularity
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
        assert worker(shop).batch(_lookers(users)) is None

    def test_nobody_gives_no_batch(self, shop: Shop) -> None:
        nobody = next(chunks(shop.prepared.users(), 1)).before(0)
        assert len(nobody) == 0
        assert worker(shop).batch(nobody) is None

    def test_they_are_passed_over(self, shop: Shop) -> None:
        mine, users = worker(shop), shop.prepared.users()
        asked: list[bool] = []

        def agree(more: bool) -> bool:
            asked.append(more)
            return more

        mine.train_epoch([_lookers(users), users, _lookers(users)], 10, agree)
        assert (mine.step, asked) == (1, [True, False])

    def test_a_worker_stops_when_another_has_no_more(self, shop: Shop) -> None:
        mine, users = worker(shop), shop.prepared.users()
        mine.train_epoch(chunks(users, 8), 10, lambda more: more and mine.step < 2)
        assert mine.step == 2


def _lookers(users: UserEvents) -> UserEvents:
    """The same users, who never buy."""
    codes = np.zeros_like(users.event_codes)
    return UserEvents(
        users.user_ids, users.item_rows, codes, users.timestamps, users.baskets, users.offsets
    )


class TestHead:
    def test_workers_that_share_the_questions_find_the_same_head(self, shop: Shop) -> None:
        """Loss and gradient are summed over workers: two halves are as good as the whole."""
        codes = target_codes(shop.recipe)
        _, questions = shop.prepared.questions("head", codes)
        alone = worker(shop)
        expected = alone.fit_head(alone.head_examples(questions))

        pair = [worker(shop, rank, 2) for rank in range(2)]
        half = len(questions) // 2
        parts = [
            pair[0].head_examples(questions[:half]),
            pair[1].head_examples(questions[half:]),
        ]
        found = _in_step([each.fit_head for each in pair], parts)
        # Sums in another order lead L-BFGS along a slightly different path.
        assert found == pytest.approx([expected, expected], rel=0.01)
        assert found[0] == found[1]
        for name, value in pair[0].head.state_dict().items():
            torch.testing.assert_close(pair[1].head.state_dict()[name], value, rtol=0, atol=0)

    @pytest.mark.parametrize("every_days", [1, None])
    def test_a_worker_without_questions_goes_along(
        self, shop: Shop, every_days: int | None
    ) -> None:
        """The shards of a third one hold nothing to ask: the head is that of the other two."""
        data = {"data": shop.recipe.data.model_copy(update={"count_every_days": every_days})}
        shop = shop._replace(recipe=shop.recipe.model_copy(update=data))
        codes = target_codes(shop.recipe)
        _, questions = shop.prepared.questions("head", codes)
        _, none = shop.prepared.questions("head", codes, shards=[])
        assert len(none) == 0
        half = len(questions) // 2
        pair = [worker(shop, rank, 2) for rank in range(2)]
        parts = [
            pair[0].head_examples(questions[:half]), pair[1].head_examples(questions[half:]),
        ]  # fmt: skip
        expected = _in_step([each.fit_head for each in pair], parts)

        third = worker(shop, 2, 3)
        found = _in_step(
            [each.fit_head for each in (*(worker(shop, rank, 3) for rank in range(2)), third)],
            [*parts, third.head_examples(none)],
        )
        assert found == pytest.approx([expected[0]] * 3)
        for name, value in third.head.state_dict().items():
            torch.testing.assert_close(value, pair[0].head.state_dict()[name])
        assert third.validate(none) == (0.0, 0)

    def test_examples_count_every_relevant_item_once(self, shop: Shop) -> None:
        codes = target_codes(shop.recipe)
        _, questions = shop.prepared.questions("head", codes)
        mine = worker(shop)
        scorer = mine.scorer("head")
        sample = np.arange(scorer.num_items)
        zeros = np.zeros(len(sample), dtype=np.float32)
        examples = head_examples(scorer, questions, sample, zeros, np.random.default_rng(0))
        inside = int(examples.pair_relevant.sum())
        assert inside + len(examples.pos_query) == len(questions.relevant)
        counted = examples.sample_left_out.sum(dim=1).numpy()
        pairs = np.bincount(examples.pair_query.numpy(), minlength=len(questions))
        outside = np.bincount(examples.pos_query.numpy(), minlength=len(questions))
        assert (counted == pairs + outside).all()


def _in_step(fits: list[Any], parts: list[Any]) -> list[float]:
    """Run the fits in threads whose `reduce` adds up what all hand in."""
    world = len(fits)
    barrier, handed = threading.Barrier(world), [torch.zeros(0)] * world
    results = [0.0] * world

    def run(rank: int) -> None:
        def reduce(value: torch.Tensor) -> None:
            handed[rank] = value.clone()
            barrier.wait(60)
            total = torch.stack(handed).sum(dim=0)
            barrier.wait(60)
            value.copy_(total)

        results[rank] = fits[rank](parts[rank], reduce)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_ties_are_broken_by_a_seeded_permutation() -> None:
    assert sorted(tie_order(50, 7)) == list(range(50))
    assert (tie_order(50, 7) == tie_order(50, 7)).all()
    assert (tie_order(50, 7) != tie_order(50, 8)).any()


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A log where most users only look, so that workers get batches without a single target."""
    folder = tmp_path_factory.mktemp("uneven")
    rng = np.random.default_rng(1)
    rows = []
    for number in range(80):
        for visit in range(0, 88, 4):
            kind = "purchase" if number % 10 == 0 else "view"
            moment = day(visit) + dt.timedelta(hours=number % 5)
            item = int(rng.integers(40))
            rows.append((user_id(number), f"item-{item:04d}", kind, moment, None))
    names = [Col.user, Col.item, Col.event_type, Col.timestamp, Col.session]
    schema = dict.fromkeys(names, pl.String) | {Col.timestamp: pl.Datetime("us", "UTC")}
    events = pl.DataFrame(rows, schema=schema, orient="row")
    write_log(folder / "log", events, tiny_items())
    recipe = tiny_recipe(folder)
    prepared = prepare_here(recipe)
    return Shop(recipe, prepared, store_here(recipe))


def test_two_processes_end_together_on_uneven_data(uneven: Shop, tmp_path: Path) -> None:
    """DDP would wait for ever if one of them left a step out."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        meet = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    mp.spawn(_distributed, args=(uneven, meet, str(tmp_path)), nprocs=2)
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    encoded = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    # What one of them has encoded in a step, the other need not.
    assert len(encoded[0]) == len(encoded[1]) > 0
    for mine, other in zip(*encoded, strict=True):
        assert mine and not set(mine) & set(other)
    # The cache among them.
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, msg=name)


def test_what_two_processes_share_has_the_gradient_of_each_alone(
    shop: Shop, tmp_path: Path
) -> None:
    """With every text encoded afresh, DDP's gradient is the mean of two workers' own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        meet = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    mp.spawn(_one_step, args=(shop, meet, str(tmp_path)), nprocs=2)
    alone = []
    for rank in range(2):
        mine = worker(shop, rank, 2, fresh_texts_per_step=None, clip_norm=1e9)
        batch = mine.batch(shop.prepared.users(shop.prepared.shards[rank::2]))
        assert batch is not None
        mine.train_step(batch, 10)
        alone.append(_gradients(mine))
    found = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]
    assert any(name.startswith("language.") for name in alone[0])
    for name, gradient in alone[0].items():
        expected = (gradient + alone[1][name]) / 2
        for each in found:
            torch.testing.assert_close(each[name], expected, rtol=1e-3, atol=1e-6, msg=name)


def _gradients(mine: Worker) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in mine.ranker.named_parameters() if p.grad is not None}


def _one_step(rank: int, shop: Shop, meet: str, out: str) -> None:
    torch.set_num_threads(1)
    timeout = dt.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timeout)
    mine = worker(shop, rank, 2, fresh_texts_per_step=None, clip_norm=1e9)
    mine.wrapped = DistributedDataParallel(mine.ranker)
    batch = mine.batch(shop.prepared.users(shop.prepared.shards[rank::2]))
    assert batch is not None
    mine.train_step(batch, 10)
    save_file(_gradients(mine), f"{out}/{rank}.safetensors")
    dist.destroy_process_group()


def _distributed(rank: int, shop: Shop, meet: str, out: str) -> None:
    torch.set_num_threads(1)
    timeout = dt.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timeout)
    mine = worker(shop, rank, 2)
    mine.wrapped = DistributedDataParallel(mine.ranker)
    encoded: list[list[int]] = []
    hidden = mine._hidden
    mine._hidden = lambda texts: encoded.append(texts.tolist()) or hidden(texts)  # type: ignore

    def agree(more: bool) -> bool:
        votes = torch.tensor(float(more))
        dist.all_reduce(votes)
        return float(votes) == 2

    users = shop.prepared.users(shop.prepared.shards[rank::2])
    for _ in range(2):
        mine.train_epoch(chunks(users, 3), 20, agree)
    weights = {name: p.detach() for name, p in mine.ranker.named_parameters() if p.requires_grad}
    weights |= {"the cache": mine.cache.vectors, "the step": torch.tensor(mine.step)}
    save_file(weights, f"{out}/{rank}.safetensors")
    Path(out, f"{rank}.json").write_text(json.dumps(encoded))
    dist.destroy_process_group()
