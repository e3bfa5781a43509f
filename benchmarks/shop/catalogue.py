"""What the generated shop sells: categories and styles that texts tell, a quality that none tells.

Legend: I items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from recsys.arrays import Float64s, Int64s
from recsys.schema import Col

#: Things by category. The last category is what tastes shift to on the planted day.
THINGS: Final = {
    "shoes": ("boots", "sandals", "trainers"),
    "lighting": ("desk lamp", "lantern", "floor lamp"),
    "kitchen": ("saucepan", "chopping board", "kettle"),
    "bags": ("rucksack", "tote bag", "suitcase"),
    "toys": ("puzzle", "building blocks", "kite"),
    "bedding": ("blanket", "pillow", "duvet"),
    "stationery": ("notebook", "fountain pen", "calendar"),
    "garden": ("watering can", "planter", "parasol"),
}
#: Words by style: a text has two of its style's, so that like items share meaning and not words.
STYLES: Final = {
    "rustic": ("oak", "woven", "farmhouse", "earthy"),
    "modern": ("minimalist", "matt steel", "geometric", "sleek"),
    "romantic": ("floral", "pastel", "lace", "rose"),
    "outdoor": ("waterproof", "rugged", "trail", "lightweight"),
    "vintage": ("retro", "brass", "antique", "sepia"),
    "playful": ("rainbow", "cartoon", "dotted", "neon"),
}
BRANDS: Final = ("Almara", "Brenn", "Corvo", "Dunlin", "Ester", "Fjell")
#: Texts by template.
TEMPLATES: Final = (
    "{first} {thing} with a {second} finish",
    "A {second} {thing}, made by {brand} for a {first} home",
    "{thing} by {brand}: {first}, {second}",
)
NUM_CATEGORIES, NUM_STYLES = len(THINGS), len(STYLES)
#: A day before all others.
EVER: Final = -(10**6)
#: What tastes shift to.
SHIFTED_TO: Final = NUM_CATEGORIES - 1


@dataclass(frozen=True)
class Catalogue:
    """All items that the shop ever sells.

    Attributes:
        table: their canonical columns.
        category, style: [I] numbers.
        log_price: [I].
        quality: [I] standard normal; it sells, and no text tells it.
        born: [I] the day from which an item is sold; `EVER`: always.
    """

    table: pl.DataFrame
    category: Int64s
    style: Int64s
    log_price: Float64s
    quality: Float64s
    born: Int64s

    @staticmethod
    def generate(num_items: int, new_on: dict[int, int], seed: int) -> Catalogue:
        """Draw a catalogue.

        Args:
            num_items: that were always sold.
            new_on: day -> items that are new on it.
            seed: of all that is drawn.
        """
        rng = np.random.default_rng([seed, 1])
        born = np.repeat([EVER, *new_on], [num_items, *new_on.values()])
        size = len(born)
        category, style, brand = (
            rng.integers(number, size=size) for number in (NUM_CATEGORIES, NUM_STYLES, len(BRANDS))
        )
        log_price = np.log(10 + 5 * category) + rng.normal(0, 0.5, size)
        quality = rng.normal(size=size)
        rows = [
            _row(row, *kinds, float(np.exp(log_price[row])), rng)
            for row, kinds in enumerate(zip(category, style, brand, strict=True))
        ]
        return Catalogue(pl.DataFrame(rows), category, style, log_price, quality, born)

    def __len__(self) -> int:
        return len(self.born)

    def sold_on(self, day: int) -> Int64s:
        """Rows of the items that are sold by a day."""
        return np.flatnonzero(self.born <= day)

    def new_on(self, day: int) -> Int64s:
        """Rows of the items that are new on a day."""
        return np.flatnonzero(self.born == day)


def _row(
    row: int, category: int, style: int, brand: int, price: float, rng: np.random.Generator
) -> dict[str, object]:
    name, things = list(THINGS.items())[category]
    first, second = rng.choice(list(STYLES.values())[style], 2, replace=False)
    words = {
        "first": first, "second": second, "thing": rng.choice(things), "brand": BRANDS[brand]
    }  # fmt: skip
    text = str(rng.choice(TEMPLATES)).format(**words)
    return {
        Col.item: f"item-{row:05d}",
        Col.title: text[0].upper() + text[1:],
        Col.brand: BRANDS[brand],
        Col.category: name,
        Col.price: round(price, 2),
    }
