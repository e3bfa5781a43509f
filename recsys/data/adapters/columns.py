"""Column mapping: a file's columns to canonical ones, by name or recipe, with suggestions.

A *layout* is what the files of one writer share: their columns and the keys of their folders. What
is wrong with the names or types of a layout is told once, however many files have it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from recsys.data.adapters.conform import wrong_type
from recsys.data.adapters.text import IdKind, id_kind, plain
from recsys.errors import DataError
from recsys.schema import Col

#: Column -> what other shops, and public logs, call it.
SYNONYMS = {
    Col.user: (
        "user", "customer_id", "customer", "client_id", "visitor_id", "member_id", "account_id",
        "shopper_id", "household_id", "uid",
    ),
    Col.item: (
        "item", "product_id", "product", "sku", "article_id", "asin", "stock_code", "variant_id",
        "content_id",
    ),
    Col.event_type: ("event", "event_name", "action", "type", "behavior_type", "interaction"),
    Col.timestamp: (
        "ts", "time", "datetime", "event_time", "event_ts", "event_timestamp", "event_date",
        "created_at", "occurred_at", "date",
    ),
    Col.session: ("session", "user_session", "visit_id", "basket_id", "order_id", "invoice_no"),
    Col.title: ("name", "product_name", "item_name", "product_title", "item_title"),
    Col.description: ("desc", "product_description", "long_description"),
    Col.brand: ("brand_name", "manufacturer", "vendor"),
    Col.category: ("category_name", "category_code", "product_category", "product_type"),
    Col.price: ("unit_price", "list_price", "sale_price"),
}  # fmt: skip
_ALIKE = 0.85  # below it `event_type` is like `event_time`
_MOST_NAMES = 60


@dataclass(frozen=True)
class Layout:
    """Columns and folder keys that a number of files have in common.

    Attributes:
        types: the file's columns and their types.
        keys: of the folders above it, outermost first.
        twice: names that two columns of the file have.
    """

    types: tuple[tuple[str, pa.DataType], ...]
    keys: tuple[str, ...]
    twice: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Columns, then the keys that are no columns."""
        held = [name for name, _ in self.types]
        return held + [key for key in self.keys if key not in held]

    def sources(self, schema: pa.Schema, renamed: Mapping[str, str]) -> dict[str, str]:
        """Our columns that can be read -> theirs, a file's column before a folder's key.

        Args:
            schema: `EVENTS` or `ITEMS`.
            renamed: of the recipe, ours -> theirs; where theirs is not here, our own name counts.
        """
        there = set(self.names)
        wanted = {name: [renamed.get(name, name), name] for name in schema.names}
        found = {
            ours: [each for each in theirs if each in there] for ours, theirs in wanted.items()
        }
        return {ours: theirs[0] for ours, theirs in found.items() if theirs}

    def readable(self, schema: pa.Schema, renamed: Mapping[str, str]) -> dict[str, str]:
        """Those of `sources` whose types can be taken, whatever else is wrong."""
        types = dict(self.types)
        return {
            ours: theirs
            for ours, theirs in self.sources(schema, renamed).items()
            if theirs not in self.twice
            and (theirs not in types or not wrong_type(schema.field(ours), types[theirs], where=""))
        }

    def id_kinds(self, schema: pa.Schema, renamed: Mapping[str, str]) -> dict[str, IdKind]:
        """Our id columns -> what kind of type holds them; a folder's name is text."""
        types = dict(self.types)
        kinds = {}
        for ours, theirs in self.sources(schema, renamed).items():
            kind = id_kind(plain(types[theirs])) if theirs in types else "text"
            if ours.endswith("_id") and kind is not None:
                kinds[ours] = kind
        return kinds


def layout_problems(
    layout: Layout,
    schema: pa.Schema,
    renamed: Mapping[str, str],
    needed: Sequence[str],
    *,
    table: str,
    where: str,
) -> list[DataError]:
    """What is wrong with the names and types of a layout, however its rows look.

    Args:
        layout: to be read as the schema.
        schema: `EVENTS` or `ITEMS`.
        renamed: of the recipe, ours -> theirs.
        needed: our columns that must be there.
        table: `events` or `items`.
        where: file or files, for the messages.
    """
    sources, types = layout.sources(schema, renamed), dict(layout.types)
    problems = []
    if missing := [name for name in needed if name not in sources]:
        problems.append(_missing(missing, layout, schema, sources, table=table, where=where))
    for ours, theirs in sources.items():
        if theirs in layout.twice:
            problems.append(
                DataError(
                    "two columns of this name",
                    where=where,
                    field=theirs,
                    fix="write the file with one of them",
                )  # fmt: skip
            )
        elif theirs in types:
            wrong = wrong_type(schema.field(ours), types[theirs], where=where)
            problems += [wrong] if wrong else []
    return problems


def nearest(name: str, there: Iterable[str]) -> list[str]:
    """Columns that may be meant by one of ours, the likeliest first.

    Those that differ in capitals and underscores alone, those that are spelled alike, and what
    others call it.
    """
    bare = {each: _bare(each) for each in there}
    same = [each for each, letters in bare.items() if letters == _bare(name)]
    alike = difflib.get_close_matches(_bare(name), bare.values(), n=3, cutoff=_ALIKE)
    called = [_bare(synonym) for synonym in SYNONYMS.get(name, ())]
    ranked = [*same, *(e for a in alike for e in bare if bare[e] == a)]
    ranked += [e for synonym in called for e in bare if bare[e] == synonym]
    return list(dict.fromkeys(ranked))


def mapping_of(names: Sequence[str], there: Sequence[str], *, table: str) -> str:
    """What to write into the recipe so that these columns of ours are found, as far as one can see.

    Args:
        names: ours.
        there: columns that are not read as one of ours yet.
        table: `events` or `items`.
    """
    free, guessed = list(there), {}
    for name in names:
        found = nearest(name, free)
        guessed[name] = found[0] if found else "<yours>"
        free = [each for each in free if each != guessed[name]]
    inner = ", ".join(f"{ours}: {theirs}" for ours, theirs in guessed.items())
    return f"data.columns: {{{table}: {{{inner}}}}}"


def unmapped(renamed: Mapping[str, str], there: Sequence[str], *, table: str) -> list[DataError]:
    """The recipe's names that no file has, one error each."""
    problems = []
    for ours, theirs in renamed.items():
        if theirs in there:
            continue
        near = [e for e in there if _bare(e) == _bare(theirs)]
        near = near or difflib.get_close_matches(theirs, there, n=1) or nearest(ours, there)
        meant = f"did you mean `{near[0]}`? " if near else ""
        problems.append(
            DataError(
                "no file has this column",
                where="recipe",
                field=f"data.columns.{table}.{ours}",
                value=theirs,
                fix=f"{meant}the {table} have {_listed(there)}",
            )  # fmt: skip
        )
    return problems


def overlooked(
    there: Sequence[str], sources: Mapping[str, str], schema: pa.Schema, *, table: str
) -> list[str]:
    """Columns that may well be one of ours and are not read, in words."""
    free = [each for each in there if each not in sources.values()]
    lines = []
    for name in (each for each in schema.names if each not in sources):
        if likely := _likely(name, free):
            mapping = mapping_of([name], likely, table=table)
            lines.append(
                f"the {table}' column `{likely[0]}` is not read; if it is the {name}, {mapping}"
            )
    return lines


def _missing(
    missing: list[str],
    layout: Layout,
    schema: pa.Schema,
    sources: Mapping[str, str],
    *,
    table: str,
    where: str,
) -> DataError:
    free = [name for name in layout.names if name not in sources.values()]
    # Whoever writes capitals writes them everywhere: the optional columns go into the mapping too.
    also = [
        name
        for name in schema.names
        if name not in sources and name not in missing and _likely(name, free)
    ]  # fmt: skip
    added = ", ".join(f"`{name}` of type {schema.field(name).type}" for name in missing)
    a_column, column = ("a column", "column") if len(missing) == 1 else ("columns", "columns")
    return DataError(
        f"missing {column}", where=where, field=", ".join(missing), value=_listed(layout.names),
        fix=f"name yours in the recipe, {mapping_of([*missing, *also], free, table=table)}, "
        f"or add {a_column} {added}",
    )  # fmt: skip


def _likely(name: str, free: Sequence[str]) -> list[str]:
    """Columns that are an optional one of ours in all likelihood; a title is worth a guess."""
    if name == Col.title:
        return nearest(name, free)
    return [each for each in free if _bare(each) == _bare(name)]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _bare(name: str) -> str:
    return "".join(each for each in name.lower() if each.isalnum())
