"""Ranking metrics (draft)."""

import numpy as np


def ranks_of(scores, relevant, offsets, tie_order):
    q = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    out = np.empty(len(relevant), dtype=np.int64)
    for i, (qq, r) in enumerate(zip(q, relevant)):
        s = scores[qq]
        v = s[r]
        out[i] = 1 + (s > v).sum() + ((s == v) & (tie_order < tie_order[r])).sum()
    return out


def ndcg_at_k(ranks, offsets, k):
    q = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    g = np.where(ranks <= k, 1 / np.log2(ranks + 1.0), 0)
    dcg = np.bincount(q, g, minlength=len(offsets) - 1)
    n = np.minimum(np.diff(offsets), k)
    ideal = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    return dcg / ideal[n]
