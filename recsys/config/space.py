"""A search's space: which fields of the recipe are searched, and what their values are drawn from.

train.learning_rate: {loguniform: [0.0003, 0.005]}
model.dropout: {uniform: [0, 0.3]}
model.num_layers: {int: [1, 3]}
train.batch_size: {choice: [16, 32]}
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from recsys.config.base import Section

#: A value of a field; lists and sections are not drawn.
Value = bool | int | float | str | None
Values = Annotated[tuple[Value, ...], Field(min_length=1)]
Floats = tuple[float, float]
Ints = tuple[int, int]

HOW = "{loguniform: [low, high]}, {uniform: [low, high]}, {int: [low, high]} or {choice: [...]}"
#: Where in a range a value is tried that is neither of its ends, nor round.
INSIDE = 0.381966


class Distribution(Section):
    """What a trial's value of a field is drawn from; one of these."""

    loguniform: Floats | None = None
    """`[low, high]`, above 0: a factor of ten is as likely as any other."""
    uniform: Floats | None = None
    """`[low, high]`."""
    int: Ints | None = None
    """`[low, high]`: a whole number, both ends included."""
    choice: Values | None = None
    """Any of these values."""

    @model_validator(mode="after")
    def _is_one(self) -> Distribution:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"given is {' and '.join(given) or 'nothing'}: write one of {HOW}")
        if self.choice is None:
            low, high = self.values
            if low > high:
                raise ValueError(f"high ({high}) lies below low ({low})")
            if self.loguniform is not None and low <= 0:
                raise ValueError(f"low ({low}) of a loguniform range must lie above 0")
        return self

    @model_serializer(mode="wrap")
    def _without_the_others(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}

    @property
    def values(self) -> tuple[Any, ...]:
        """Both ends of a range, or the values to choose from."""
        return self.choice or self.loguniform or self.uniform or self.int or ()

    def extremes(self) -> tuple[Any, ...]:
        """Values that a field must take to take all that may be drawn: ends, and one between."""
        if self.loguniform is None and self.uniform is None:
            return self.values
        low, high = self.values
        return low, high, low + INSIDE * (high - low)

    def __str__(self) -> str:
        """In words."""
        if self.choice is not None:
            return f"one of {', '.join(map(str, self.choice))}"
        low, high = self.values
        kind = ", log-uniform" * (self.loguniform is not None)
        return f"{low:g} to {high:g}{kind or ', whole' * (self.int is not None)}"


KINDS = tuple(Distribution.model_fields)


def by_dotted_name(space: object) -> object:
    """A space whose sections may be written out (`{train: {learning_rate: ...}}`), by dotted names.

    So a single field of it can be overridden on the command line.
    """
    if not isinstance(space, Mapping):
        return space
    found: dict[str, object] = {}
    for name, given in _fields(space):
        if name in found:
            raise ValueError(f"{name} is given twice")
        found[name] = given
    return found


def _fields(space: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, given in space.items():
        name = f"{prefix}{key}"
        if isinstance(given, Distribution) or (isinstance(given, Mapping) and {*given} & {*KINDS}):
            yield name, given
        elif isinstance(given, Mapping) and given:
            yield from _fields(given, f"{name}.")
        else:
            field, _, kind = name.rpartition(".")
            near = difflib.get_close_matches(kind, KINDS, n=1)
            meant = f"did you mean {field}.{near[0]}?" if near and field else f"write {HOW}"
            raise ValueError(f"{name} is no distribution: {meant}")


Space = Annotated[dict[str, Distribution], Field(min_length=1), BeforeValidator(by_dotted_name)]
