"""Who shops, and the true probabilities of all that they do.

A shopper looks at a place of a list with a probability that falls with it, opens what was looked at
by taste, quality and price, and may put it into the cart, buy it while the budget lasts, and send
it back. Looking and opening are independent: a click's probability is the product of both.

Legend: U shoppers, C categories, S styles; other arrays have any shape, the same for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks.shop.catalogue import NUM_CATEGORIES, NUM_STYLES, SHIFTED_TO, Catalogue
from recsys.arrays import Bools, Float64s, Int64s

#: A place is looked at with probability place ** -LOOK.
LOOK: Final = 0.5
#: Steps of a taste from one day to the next, and the share whose taste shifts on the planted day.
DAILY_STEP, SHIFTED = 0.08, 0.8
#: Money is paid every so many days.
BUDGET_DAYS: Final = 14

Floats = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]


def looking(position: Ints) -> Floats:
    """Probability that a place, counted from 1, is looked at."""
    return np.asarray(position, dtype=np.float64) ** -LOOK


@dataclass(frozen=True)
class Chances:
    """What may come of items that are shown, as probabilities.

    Attributes:
        look: of the place.
        open: that the item is opened, given that the place is looked at.
        cart: that it goes into the cart, given that it is opened.
        buy: that it is bought, given that it is in the cart.
        back: that it comes back, given that it is bought.
        log_dwell_ms: mean of the logarithm of the time on its page, given that it is opened.
    """

    look: Floats
    open: Floats
    cart: Floats
    buy: Floats
    back: Floats
    log_dwell_ms: Floats

    @property
    def click(self) -> Floats:
        """P(click | shown)."""
        return self.look * self.open


#: Standard deviation of the logarithm of the dwell time.
DWELL_SPREAD: Final = 0.7


@dataclass
class Shoppers:
    """The shop's shoppers as they are on a day.

    Attributes:
        taste: [U, C + S] for categories and styles.
        log_price: [U] the price that suits best.
        visits: [U] expected visits a day.
        money: [U] what each may spend in `BUDGET_DAYS`.
        left: [U] what is left of it.
        opened: [U, I] what each has ever opened.
    """

    catalogue: Catalogue
    taste: Float64s
    log_price: Float64s
    visits: Float64s
    money: Float64s
    left: Float64s
    opened: Bools
    rng: np.random.Generator

    @staticmethod
    def generate(catalogue: Catalogue, num: int, seed: int) -> Shoppers:
        """Draw shoppers, each with one or two categories and a style that they love."""
        rng = np.random.default_rng([seed, 2])
        taste = rng.normal(0, 0.5, (num, NUM_CATEGORIES + NUM_STYLES))
        rows = np.arange(num)
        for _ in range(2):  # nobody loves yet what tastes will shift to
            taste[rows, rng.integers(SHIFTED_TO, size=num)] += 1.5
        taste[rows, NUM_CATEGORIES + rng.integers(NUM_STYLES, size=num)] += 1.5
        taste[:, SHIFTED_TO] -= 1
        log_price = rng.normal(np.log(25), 0.4, num)
        money = np.exp(log_price) * rng.lognormal(1.0, 0.5, num)
        visits = np.minimum(rng.gamma(2.0, 0.5, num), 4)
        opened = np.zeros((num, len(catalogue)), dtype=bool)
        return Shoppers(catalogue, taste, log_price, visits, money, money.copy(), opened, rng)

    def __len__(self) -> int:
        return len(self.visits)

    def next_day(self, day: int, *, shift: bool) -> None:
        """Let tastes drift, fill the purses in turn, and shift tastes on the planted day."""
        self.taste += self.rng.normal(0, DAILY_STEP, self.taste.shape)
        paid = np.arange(len(self)) % BUDGET_DAYS == day % BUDGET_DAYS
        self.left[paid] = self.money[paid]
        if shift:
            chosen = np.flatnonzero(self.rng.random(len(self)) < SHIFTED)
            best = self.taste[chosen, :SHIFTED_TO].argmax(axis=1)
            new, old = self.taste[chosen, SHIFTED_TO], self.taste[chosen, best]
            self.taste[chosen, SHIFTED_TO], self.taste[chosen, best] = old + 1.0, new

    def appeal(self, users: Int64s, items: Int64s, taste: Float64s | None = None) -> Floats:
        """How much items please, as a logit.

        Args:
            users: numbers, of the shape of `items`.
            items: rows.
            taste: of another day; None: as it is.
        """
        taste, about = self.taste if taste is None else taste, self.catalogue
        likes = taste[users, about.category[items]]
        likes = likes + taste[users, NUM_CATEGORIES + about.style[items]]
        dear = np.abs(about.log_price[items] - self.log_price[users])
        return np.asarray(likes + 0.7 * about.quality[items] - 0.8 * dear)

    def chances(
        self, users: Int64s, items: Int64s, position: Ints, taste: Float64s | None = None
    ) -> Chances:
        """The probabilities of what may come of items that are shown; see `appeal`."""
        appeal, about = self.appeal(users, items, taste), self.catalogue
        affordable = np.exp(about.log_price[items]) <= self.left[users]
        return Chances(
            look=looking(position),
            open=expit(appeal - 3.5),
            cart=expit(0.5 * appeal - 1.5),
            buy=expit(0.5 * about.quality[items] + 0.5) * affordable,
            back=expit(-2.0 - about.quality[items]),
            log_dwell_ms=9.0 + 0.3 * appeal,
        )

    def browse(self, users: Int64s, day: int, most: int) -> Int64s:
        """[n, most] rows that shoppers find without the service, by taste; -1 where none.

        What was opened before is seldom looked for again.
        """
        sold = self.catalogue.sold_on(day)
        shape = (len(users), len(sold))
        appeal = self.appeal(users[:, None], np.broadcast_to(sold, shape))
        appeal = appeal - 4.0 * self.opened[users[:, None], sold]
        noisy = appeal + self.rng.gumbel(size=shape)
        found = sold[np.argsort(-noisy, axis=1)[:, :most]]
        number = np.minimum(self.rng.poisson(most / 2, len(users)), most)
        return np.where(np.arange(most) < number[:, None], found, -1)
