"""The inputs of the heads: one function for training, judging and serving.

Rates are smoothed by empirical Bayes, as logits. A user's rate of a thing is told as its difference
from what user and thing lead one to expect, so that it is 0 where nothing is known.

Legend: N rows (a user is shown an item at a moment), I items, F inputs, E embedded ids, V values of
a field, C counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.outcome_heads.counts import PLACE
from recsys.outcome_heads.item_fields import ItemFields
from recsys.outcome_heads.keys import NONE, UInt64s, keys_of, of_user
from recsys.outcome_heads.tables import DAY_US, RateTables, things_of
from recsys.schema import Col

Float32s = NDArray[np.float32]
#: Rate -> the counts that it is the ratio of.
RATES: Final = {
    "click": ("clicks", "shows"),
    "cart": ("carts", "shows"),
    "purchase": ("purchases", "shows"),
    "long_view": ("long_views", "shows"),
    "strong": ("strong", "seen"),
}
_SUPPORT: Final = ("shows", "seen")


def logit(p: Any) -> Any:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


@dataclass(frozen=True)
class InputSpec:
    """What the inputs are, in order.

    Attributes:
        rates: of `RATES`, those that the log has.
        fields, numbers: of items.
        num_ids: rows of an embedding table.
        score_quantiles: model version -> 101 quantiles of its scores.
    """

    rates: tuple[str, ...]
    fields: tuple[str, ...]
    numbers: tuple[str, ...]
    night_h: int = 0
    dwell: bool = True
    utc_offset_h: int = 0


@dataclass(frozen=True)
class Asked:
    users: UInt64s
    item_rows: NDArray[Any]
    now: NDArray[np.int64]
    placements: pl.Series
    scores: Float32s


class Lookup:
    """Tables ready to be asked, as of one night."""

    def __init__(self, spec: InputSpec, tables: RateTables, items: ItemFields) -> None:
        self.spec, self.tables, self.items = spec, tables, items
        t = tables.total
        self.base = {r: float((t[PLACE[a]] + 1) / (t[PLACE[b]] + 10)) if t[PLACE[b]] else .1 for r, (a, b) in RATES.items()}
        self.dwell0 = float((t[PLACE["log_dwell"]] + 3) / (t[PLACE["dwells"]] + 1))
        self.kinds = tables.kinds
        self.k_things = {(c, r): self._k(tables.things, c, r) for c in range(len(self.kinds)) for r in spec.rates}
        self.k_user = {r: self._k(tables.users, 0, r) for r in spec.rates}
        self.k_pairs = {(c, r): 8. for c in range(len(self.kinds)) for r in spec.rates}

    def _k(self, counts, code, rate):
        a, b = (PLACE[x] for x in RATES[rate])
        rows = counts.counts[counts.kinds == code]
        n, s = rows[:, b].astype(float), np.minimum(rows[:, a], rows[:, b]).astype(float)
        ok = n >= 1; n, s = n[ok], s[ok]
        if len(n) < 10 or s.sum() == 0: return 20.
        m = s.sum() / n.sum(); N = n.sum()
        S = (n * (s / n - m) ** 2).sum()
        v = (S - (len(n) - 1) * m * (1 - m)) / (N - (n * n).sum() / N)
        return float(np.clip(m * (1 - m) / max(v, 1e-9) - 1, 1, 1000))

    def rate(self, counts, rate, k, prior):
        a, b = (PLACE[x] for x in RATES[rate])
        n = counts[..., b]
        s = counts[..., a]
        return logit((s + k * prior) / (n + k) if rate != "strong" else np.clip((s + k * prior) / (n + s*0 + k), 1e-3, 5)/6)

    def inputs(self, q: Asked):
        sp = self.spec
        T = things_of(self.tables, self.items, q.item_rows, q.placements)
        day = (q.now.min() - sp.night_h * 3600_000_000) // DAY_US
        F = {}
        uc_rows = self.tables.users.find(q.users); uc = self.tables.users.at(uc_rows)
        ulog = {}
        for r in sp.rates:
            ulog[r] = self.rate(uc, r, self.k_user[r], self.base[r]); F[f"user {r}"] = ulog[r] - logit(self.base[r]) 
            F[f"all {r}"] = np.full(len(q.users), logit(self.base[r]))
        for c in _SUPPORT: F[f"user {c}"] = np.log1p(uc[:, PLACE[c]])
        if sp.dwell:
            F["user dwell"] = (uc[:, PLACE["log_dwell"]] + 4 * self.dwell0) / (uc[:, PLACE["dwells"]] + 4)
        F["user likes/seen"]=0*q.now
        tl = {}
        for code, (kind, keys) in enumerate(zip(self.kinds, T)):
            if code == 0: continue
            rows = self.tables.things.find(keys); cs = self.tables.things.at(rows)
            has = (keys != NONE); w = has / np.maximum(has.sum(1, keepdims=True), 1)
            mean = (cs * w[..., None]).sum(1)
            for r in sp.rates:
                if kind == "item at placement":
                    prior = sigmoid(tl["item", r] + tl["placement", r] - logit(self.base[r]))
                else: prior = self.base[r]
                l = self.rate(mean, r, self.k_things[code, r], prior)
                tl[kind, r] = l
                F[f"{kind} {r}"] = l - logit(self.base[r])
            for c in _SUPPORT: F[f"{kind} {c}"] = np.log1p(mean[:, PLACE[c]])
            if sp.dwell: F[f"{kind} dwell"] = (mean[:, PLACE["log_dwell"]] + 10 * self.dwell0) / (mean[:, PLACE["dwells"]] + 10)
            if kind == "item":
                first = np.where(rows[:, 0] >= 0, self.tables.things.first[rows[:, 0]], day)
                F["item age"] = np.log1p(day - first)
            if kind == "item at placement": continue
            pk = of_user(q.users[:, None], keys)
            pc = (self.tables.pairs.at(self.tables.pairs.find(pk)) * w[..., None]).sum(1)
            for r in sp.rates:
                e = logit(sigmoid(ulog[r] + l * 0 + tl[kind, r] - logit(self.base[r])))
                F[f"user {kind} {r}"] = self.rate(pc, r, self.k_pairs[code, r], sigmoid(e)) - e if r != "strong" else np.log((pc[:, PLACE["strong"]] + 3 * self.base[r]) / (pc[:, PLACE["seen"]] + 3))
            for c in _SUPPORT: F[f"user {kind} {c}"] = np.log1p(pc[:, PLACE[c]])
            us = uc[:, PLACE["seen"]] + uc[:, PLACE["strong"]]
            F[f"user {kind} share"] = np.log((pc[:, PLACE["seen"]] + pc[:, PLACE["strong"]] + 20*self._share(mean) + .01) / (us + 20) / (self._share(mean) + 1e-5))
        for n in sp.numbers:
            F[n] = np.log(np.maximum(self.items.numbers[n][q.item_rows], 1e-3))
        h = q.now / 3600e6 + sp.utc_offset_h
        F["hour sin"], F["hour cos"] = np.sin(h * 2 * np.pi / 24), np.cos(h * 2 * np.pi / 24)
        F["since night"] = (q.now - self.tables.as_of) / DAY_US
        F["score"] = q.scores
        F.pop("user likes/seen")
        return F

    def _share(self, mean):
        t = self.tables.total
        return (mean[:, PLACE["seen"]] + mean[:, PLACE["strong"]]) / max(1, t[PLACE["seen"]] + t[PLACE["strong"]])
