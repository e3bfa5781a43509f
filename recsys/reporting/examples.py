"""Ten users of the test window: what they had, the list they would get and why, what they took.

`evaluate` writes them as `examples.json`, anew each time. They are pseudonymous, and `compact`
takes erased users out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import polars as pl
import torch

from recsys.arrays import Int64s
from recsys.artifacts.run import Run
from recsys.config import Recipe, target_codes
from recsys.data.histories import Histories
from recsys.data.time_split import Questions
from recsys.preparation.prepared import Prepared
from recsys.ranking.explain import Reason, explain
from recsys.ranking.scorer import Scorer
from recsys.ranking.top_k import top_k
from recsys.schema import EVENT_TYPES, Col
from recsys.state.tombstones import Tombstone
from recsys.storage.outputs import write_json
from recsys.storage.reading import read_json

FORMAT: Final = 1
NUM_USERS: Final = 10
#: Places of a list; latest events of a history that are shown.
PLACES, NUM_EVENTS = 10, 8
#: Questions of the test window that users are chosen from, and that diversity is tried on.
SAMPLE: Final = 300
_FIX: Final = "run `recsys evaluate` again"


def sampled(prepared: Prepared, recipe: Recipe) -> tuple[list[str], Questions]:
    """About `SAMPLE` questions of the test window, the same each time, and each one's user."""
    most = min(SAMPLE, recipe.evaluate.max_rows or SAMPLE)
    users, questions = prepared.questions("test", target_codes(recipe), most=most, seed=recipe.seed)
    return [str(users.user_ids[index]) for index in questions.user_index], questions


def chosen(users: list[str], questions: Questions) -> Int64s:
    """Places of at most `NUM_USERS` questions: each another user's first, short to long history.

    Users are sorted by the length of their histories and split evenly. Of each part the one with
    the smallest pseudonym is taken, which is as good as drawn: it is a hash.

    Args:
        users: [Q] the user of each question.
        questions: Q of them.
    """
    _, first = np.unique(users, return_index=True)
    lengths = (questions.stops - questions.starts)[first]
    by_length = first[np.lexsort((first, lengths))]
    parts = np.array_split(by_length, min(NUM_USERS, len(by_length)))
    return np.array([min(part, key=lambda place: users[place]) for part in parts], dtype=np.int64)


def make_examples(
    scorer: Scorer, prepared: Prepared, users: list[str], questions: Questions, version: str
) -> dict[str, Any]:
    """The content of `examples.json`; docs/formats.md lists it.

    Args:
        scorer: the bundle's, over the prepared data.
        prepared: names the items.
        users: [Q] see `sampled`.
        questions: Q of them.
        version: of the bundle.
    """
    names = _Names(prepared)
    picked = chosen(users, questions)
    asked = questions.take(picked)
    lists = top_lists(scorer, asked)
    return {
        "format": FORMAT,
        "bundle": version,
        "users": [
            _example(scorer, names, users[place], asked[number : number + 1], rows)
            for number, (place, rows) in enumerate(zip(picked.tolist(), lists, strict=True))
        ],
    }


def top_lists(scorer: Scorer, questions: Questions) -> list[Int64s]:
    """[Q] the rows of each question's list, the best first."""
    scores = (scorer.scores(questions[n : n + 1].histories)[0] for n in range(len(questions)))
    return [top_k(each, PLACES)[0] for each in scores]


def lists_by_user(scorer: Scorer, prepared: Prepared, recipe: Recipe) -> dict[str, list[str]]:
    """The lists that another bundle would give the users of the examples: ids of items."""
    users, questions = sampled(prepared, recipe)
    picked, item_ids = chosen(users, questions), prepared.item_ids()
    lists = top_lists(scorer, questions.take(picked))
    return {
        users[place]: item_ids[rows].tolist()
        for place, rows in zip(picked.tolist(), lists, strict=True)
    }


def forget(run: Run, erased: Mapping[str, Tombstone]) -> bool:
    """Take erased users out of `examples.json` and `decision.json`; whether any was in them.

    Raises:
        DataError: one of the files is broken.
    """
    gone, kept = set[str](), set[str]()
    if run.examples_file.is_file():
        found = read_json(run.examples_file, _FIX, {"users": list})
        for user in found["users"]:
            known = erased.get(user["user"])
            (gone if known and user["asked_us"] <= known.until_us else kept).add(user["user"])
        if gone:
            left = [user for user in found["users"] if user["user"] in kept]
            write_json(run.examples_file, found | {"users": left})
    if run.decision_file.is_file():
        decision = read_json(run.decision_file, "run `recsys promote` again", {})
        lists = (decision["changes"] or {}).get("lists", {})
        # It may be of an earlier evaluation, which showed others.
        if here := lists.keys() & (gone | (erased.keys() - kept)):
            for user in here:
                del lists[user]
            write_json(run.decision_file, decision)
            gone |= here
    return bool(gone)


class _Names:
    """Ids and titles of catalogue rows."""

    def __init__(self, prepared: Prepared) -> None:
        items = prepared.catalogue.items
        self._ids, self._titles = items[Col.item], items[Col.title].cast(pl.String)

    def __call__(self, row: int) -> dict[str, str]:
        return {"item_id": self._ids[row], "title": self._titles[row] or ""}


def _example(
    scorer: Scorer, names: _Names, user: str, question: Questions, rows: Int64s
) -> dict[str, Any]:
    history, relevant = question.histories, question.relevant.tolist()
    part = np.asarray(scorer.item_part[torch.from_numpy(rows)])
    why = explain(scorer, history, rows, part)
    return {
        "user": user,
        "asked_us": int(question.now[0]),
        "num_events": len(history.item_rows),
        "history": _latest(history, names),
        "list": [
            names(row)
            | {"taken": row in relevant, "reasons": [_reason(each, names) for each in of.reasons]}
            for row, of in zip(rows.tolist(), why, strict=True)
        ],
        "taken": [names(row) for row in relevant],
    }


def _latest(history: Histories, names: _Names) -> list[dict[str, Any]]:
    """The latest events, newest first."""
    rows, codes, times = history.item_rows, history.event_codes, history.timestamps
    return [
        names(int(rows[place]))
        | {"event_type": EVENT_TYPES[codes[place]], "at_us": int(times[place])}
        for place in range(len(rows) - 1, max(len(rows) - 1 - NUM_EVENTS, -1), -1)
    ]


def _reason(reason: Reason, names: _Names) -> dict[str, Any]:
    return names(reason.item_row) | {
        "event_type": EVENT_TYPES[reason.event_code],
        "count": reason.count,
        "last_us": reason.last_us,
    }
