"""The recipe reference: every key with its type, default and meaning, from the models themselves.

A key's meaning is the docstring below its field; without one, its comment in
`recipes/canonical.yaml`; without either, `PLAIN`.
"""

from __future__ import annotations

import ast
import datetime as dt
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from recsys.config import Recipe  # noqa: E402

CANONICAL = ROOT / "recipes" / "canonical.yaml"
#: Meaning of the keys that neither their model nor the canonical recipe explains.
PLAIN = {
    "data.columns.events": "Of the events.",
    "data.columns.items": "Of the items.",
    "evaluate.baselines": "See [Evaluation](evaluation.md#the-baselines).",
    "pretrain.learning_rate": "Of AdamW.",
    "serve.default_k": "Items of a list where the request names no `k`.",
    "serve.max_k": "The largest `k` that a request may name.",
    "serve.port": "Of HTTP.",
    "train.clip_norm": "Largest norm of the gradient.",
    "train.cpus_per_worker": "CPUs that Ray reserves for a worker.",
    "train.warmup_fraction": "Share of the steps over which the learning rate rises.",
    "train.weight_decay": "On matrices only.",
    "serve.autoscaling.min_replicas": "Replicas at least.",
    "serve.autoscaling.max_replicas": "Replicas at most.",
    "serve.autoscaling.upscale_delay_s": "Seconds of more load before replicas are added.",
    "serve.autoscaling.downscale_delay_s": "Seconds of less load before replicas are ended.",
    "serve.text_encoder.max_replicas": "Replicas at most.",
    "serve.text_encoder.target_ongoing_requests": "Of a replica.",
    "serve.text_encoder.upscale_delay_s": "Seconds of more load before replicas are added.",
    "serve.text_encoder.downscale_delay_s": "Seconds of less load before replicas are ended.",
}
_COMMENT = re.compile(r"^(?P<code>(?:[^#\"]|\"[^\"]*\")*?)\s*#\s?(?P<text>.*)$")


def reference() -> str:
    """The whole reference as Markdown: a heading and a table for each section."""
    comments = canonical_comments(CANONICAL.read_text())
    lines: list[str] = []
    for prefix, model, given in sections():
        fields = {name: info for name, info in model.model_fields.items() if not is_section(info)}
        if not fields:
            continue
        meanings = told(model, prefix, comments)
        lines += [f"## {prefix.rstrip('.') or 'The run'}", ""]
        if prefix and (about := inspect.getdoc(model)):
            lines += [about, ""]
        lines += ["| key | type | default | |", "|---|---|---|---|"]
        for name, info in fields.items():
            key = prefix + name
            default = _default(info, getattr(given, name, PydanticUndefined))
            cells = (f"`{key}`", _words(info.annotation, info.metadata), default, meanings[name])
            lines.append("| " + " | ".join(map(_cell, cells)) + " |")
        lines.append("")
    return "\n".join(lines)


def sections(
    model: type[BaseModel] = Recipe, prefix: str = "", given: object = None
) -> Iterator[tuple[str, type[BaseModel], object]]:
    """Each section's prefix, model and default, those in lists and mappings included.

    Their prefixes are `serve.arms[].` and `tune.space.<field>.`.
    """
    yield prefix, model, given
    for name, info in model.model_fields.items():
        if is_section(info):
            yield from sections(info.annotation, f"{prefix}{name}.", info.default)  # type: ignore[arg-type]
        elif (item := _listed(info)) is not None:
            inside = ".<field>." if get_origin(info.annotation) is dict else "[]."
            yield from sections(item, f"{prefix}{name}{inside}")


def told(model: type[BaseModel], prefix: str, comments: dict[str, str]) -> dict[str, str]:
    """What each field of a section means, empty where nothing says it."""
    own = docstrings(model)
    meanings = {}
    for name in model.model_fields:
        key = prefix + name
        meaning = own.get(name) or comments.get(key) or PLAIN.get(key, "")
        meanings[name] = meaning[:1].upper() + meaning[1:]
    return meanings


def is_section(info: FieldInfo) -> bool:
    """Whether a field holds keys of its own."""
    return isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)


def docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The string below each field of a model and of its bases."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if not (issubclass(each, BaseModel) and each.__module__.startswith("recsys.")):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[field.target.id] = inspect.cleandoc(str(after.value.value))
    return found


def canonical_comments(text: str) -> dict[str, str]:
    """Dotted key -> the comment on its line, with the comment lines that go on below it."""
    comments: dict[str, str] = {}
    path: list[str] = []
    key, column = "", 0
    for line in text.splitlines():
        match = _COMMENT.match(line)
        code = match["code"] if match else line
        if not code.strip():
            if match and key in comments and line.index("#") == column:
                comments[key] += " " + match["text"].strip()
            else:
                key = ""
            continue
        indent = (len(code) - len(code.lstrip())) // 2
        path = [*path[:indent], code.strip().split(":")[0]]
        key = ".".join(path)
        if match:
            column, comments[key] = line.index("#", len(match["code"])), match["text"].strip()
    return comments


def _listed(info: FieldInfo) -> type[BaseModel] | None:
    for each in get_args(info.annotation):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def _default(info: FieldInfo, given: object) -> str:
    value = info.default if given is PydanticUndefined else given
    return "needed" if value is PydanticUndefined else f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, BaseModel):
        return _yaml({key: each for key, each in value.model_dump().items() if each is not None})
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_yaml(each) for each in value) + "]"
    return str(value)


def _words(kind: Any, metadata: Sequence[Any] = ()) -> str:
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(each) for each in inside)
    if origin is tuple:
        return f"list of {_words(inside[0])}"
    if origin is dict:
        return f"{_words(inside[0])} -> {_words(inside[1])}"
    if hasattr(kind, "__metadata__"):
        return _words(inside[0], kind.__metadata__)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "section"
    names = {str: "text", int: "whole number", float: "number", bool: "true, false"}
    names[type(None)] = "null"
    name = names.get(kind, "date or time" if kind is dt.datetime else kind.__name__)
    return " ".join([name, *_bounds(metadata)])


def _bounds(metadata: Sequence[Any]) -> Iterator[str]:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    for each in metadata:
        parts = each.metadata if isinstance(each, FieldInfo) else [each]
        for part in parts:
            for attribute, sign in signs.items():
                if (bound := getattr(part, attribute, None)) is not None:
                    yield f"{sign} {bound}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(reference())
