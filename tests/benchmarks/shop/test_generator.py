"""The generated shop without a service: what is drawn has the probabilities that are told."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from benchmarks.shop.catalogue import NUM_CATEGORIES, SHIFTED_TO, STYLES, Catalogue
from benchmarks.shop.command import SMALL, browsed
from benchmarks.shop.shoppers import LOOK, SHIFTED, Shoppers, looking
from benchmarks.shop.visits import BACK_DAYS, FIRST_DAY, MOMENTS, K, Seen, Shop, moment
from recsys.evaluation.metrics.ratio import ratio
from recsys.schema import Col

NEW_ON = {1: 20, 8: 20}


def make_shop(seed: int = 0, shift_day: int = 1) -> Shop:
    catalogue = Catalogue.generate(SMALL.items, NEW_ON, seed)
    return Shop(Shoppers.generate(catalogue, SMALL.shoppers, seed), shift_day)


@pytest.fixture(scope="module")
def shop() -> Shop:
    """After some days without a service."""
    shop = make_shop()
    browsed(shop, 10)
    return shop


def looked(shop: Shop, lists: int = 20_000) -> Seen:
    """Random lists of random shoppers."""
    rng = np.random.default_rng(5)
    users = rng.integers(len(shop.shoppers), size=lists)
    rows = np.stack([rng.choice(SMALL.items, K, replace=False) for _ in range(lists)])
    return shop.look(users, [[shop.ids[row] for row in each] for each in rows])


def test_the_same_seed_makes_the_same_shop() -> None:
    first, second, other = (browsed(make_shop(seed), 5) for seed in (3, 3, 4))
    assert first == second != other
    tables = [Catalogue.generate(30, NEW_ON, seed).table for seed in (3, 3, 4)]
    assert tables[0].equals(tables[1]) and not tables[0].equals(tables[2])


def test_texts_carry_the_style_and_not_the_quality(shop: Shop) -> None:
    catalogue = shop.shoppers.catalogue
    titles = catalogue.table[Col.title].str.to_lowercase().to_list()
    words = list(STYLES.values())
    for title, style in zip(titles, catalogue.style.tolist(), strict=True):
        assert sum(word in title for word in words[style]) >= 2
    price = catalogue.table[Col.price].to_numpy()
    assert abs(np.corrcoef(price, catalogue.quality)[0, 1]) < 0.2


def test_items_are_sold_from_their_day_on(shop: Shop) -> None:
    catalogue = shop.shoppers.catalogue
    assert [len(catalogue.sold_on(day)) for day in (-9, 0, 1, 8)] == [150, 150, 170, 190]
    assert catalogue.new_on(8).tolist() == list(range(170, 190))
    users = np.arange(len(shop.shoppers))
    assert shop.shoppers.browse(users, 0, 4).max() < 150


def test_places_are_looked_at_as_stated(shop: Shop) -> None:
    assert looking(np.array([1, 4, 9])) == pytest.approx([1, 4**-LOOK, 9**-LOOK])
    seen = looked(shop)
    by_place = seen.clicked.mean(axis=0) / seen.clicked[:, 0].mean()
    # Items are random at every place, so that the place alone makes the difference.
    assert by_place == pytest.approx(looking(np.arange(1, K + 1)), rel=0.2)


@pytest.mark.parametrize("outcome", ["click", "cart", "buy"])
def test_what_happens_has_the_true_probabilities(outcome: str) -> None:
    shop = make_shop()
    shop.shoppers.left[:] = 1e9
    seen = looked(shop)
    truth = seen.chances
    chance = {
        "click": truth.click,
        "cart": truth.click * truth.cart,
        "buy": truth.click * truth.cart * truth.buy,
    }[outcome]
    happened = {"click": seen.clicked, "cart": seen.carted, "buy": seen.bought}[outcome]
    users = np.repeat(np.arange(len(seen.users)), K)
    surplus = ratio((happened - chance).ravel(), np.ones(chance.size), users)
    low, high = surplus.interval(0.999)
    assert low < 0 < high
    # And where it is likely, it happens more often.
    likely = chance > np.quantile(chance, 0.9)
    assert happened[likely].mean() == pytest.approx(chance[likely].mean(), rel=0.2)


def test_nobody_buys_what_exceeds_the_purse() -> None:
    shop = make_shop()
    shop.shoppers.left[:] = 0
    seen = looked(shop)
    assert seen.clicked.any() and seen.carted.any() and not seen.bought.any()


def test_dwell_grows_with_the_appeal(shop: Shop) -> None:
    seen = looked(shop)
    logs = np.log(seen.dwell_ms[seen.clicked])
    means = seen.chances.log_dwell_ms[seen.clicked]
    assert logs.mean() == pytest.approx(means.mean(), abs=0.1)
    assert np.corrcoef(logs, means)[0, 1] > 0.2
    assert not seen.dwell_ms[~seen.clicked].any()


def test_tastes_shift_on_the_planted_day_alone() -> None:
    shop = make_shop(shift_day=2)
    favourites = []
    for day in range(4):
        shop.begin(day)
        best = shop.tastes[day][:, :NUM_CATEGORIES].argmax(axis=1)
        favourites.append((best == SHIFTED_TO).mean())
    before, after = favourites[:2], favourites[2:]
    assert max(before) < 0.02 and min(after) == pytest.approx(SHIFTED, abs=0.1)


def test_what_comes_back_was_bought_two_days_before() -> None:
    shop = make_shop()
    bought, back = set(), 0
    for day in range(-8, 0):
        shop.begin(day)
        events = shop.browse(shop.visitors(), day, moment(day, 0))
        returned = shop.returned(moment(day, MOMENTS - 1))
        bought |= {
            (event[Col.user], event[Col.item], event[Col.timestamp].date())
            for event in events if event[Col.event_type] == "purchase"
        }  # fmt: skip
        for event in returned:
            then = event[Col.timestamp].date() - dt.timedelta(days=BACK_DAYS)
            assert (event[Col.user], event[Col.item], then) in bought
        back += len(returned)
    assert back > 0


def test_a_list_is_answered_under_its_request_after_it_was_shown(shop: Shop) -> None:
    at, users = moment(0, 3), np.array([4, 7])
    lists = [shop.ids[:K], shop.ids[K : 2 * K]]
    told = []
    for _ in range(20):
        told += shop.answers(shop.look(users, lists), at, ["first", "second"])
    events = pl.DataFrame(told, infer_schema_length=None)
    assert set(events[Col.event_type]) >= {"click", "add_to_cart"}
    assert events[Col.timestamp].is_between(at, at + dt.timedelta(minutes=10)).all()
    row = events.row(0, named=True)
    place = shop.row_of[row[Col.item]] % K + 1
    assert row[Col.position] == place and row[Col.request] in ("first", "second")
    assert moment(0, 0) > FIRST_DAY
