"""Errors that a user can act on: where it is wrong, what is wrong, and the mend."""

from __future__ import annotations

from collections.abc import Sequence


class RaycommendError(Exception):
    """Bad input or bad circumstances; printed as one message, without a stack trace.

    Args:
        problem: what is wrong, in one clause.
        where: the file, folder or recipe that holds the mistake.
        field: the column or key.
        value: the offending value.
        mend: what to do about it.
    """

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        where: object = None,
        field: str | None = None,
        value: object = None,
        mend: str,
    ) -> None:
        # Of other libraries' messages some run over several lines; ours is one.
        problem = " ".join(problem.split())
        self.problem, self.where, self.field = problem, where, field
        self.value, self.mend = value, mend
        parts = []
        if where is not None:
            parts.append(f"{where}:")
        if field is not None:
            parts.append(f"[{field}]")
        parts.append(problem)
        if value is not None:
            parts.append(f"(got {value!r})")
        super().__init__(" ".join(parts) + f". Mend: {mend}")

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the fields when the error crosses a process boundary."""
        return _rebuild, (
            type(self),
            self.problem,
            {
                "where": str(self.where) if self.where is not None else None,
                "field": self.field,
                "value": self.value,
                "mend": self.mend,
            },
        )


def _rebuild(cls: type[RaycommendError], problem: str, kw: dict[str, object]) -> RaycommendError:
    return cls(problem, **kw)  # type: ignore[arg-type]


def cause_of(error: BaseException | None) -> RaycommendError | None:
    """The error of ours behind another: Ray wraps what its tasks raise, more than once.

    A wrapper may pass for the type of what it wraps, with a stack trace as its text: what it holds
    (`cause`; of a training run, `worker_failures`) goes first.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        held = getattr(error, "cause", None)
        if held is None and isinstance(error, RaycommendError):
            return error
        failures = getattr(error, "worker_failures", None) or {}
        held = held or next(iter(failures.values()), None)
        error = held or error.__cause__ or error.__context__
    return None


class RecipeError(RaycommendError):
    """The recipe cannot be read or contradicts itself."""


class DataError(RaycommendError):
    """The log or the catalogue cannot be used as it is."""


class DataErrors(DataError):
    """Several things that are wrong with the log or the recipe, told at once."""

    def __init__(self, errors: Sequence[RaycommendError]) -> None:
        self.errors = list(errors)
        super().__init__(f"{len(self.errors)} problems", mend="correct them all")

    def __str__(self) -> str:
        return f"{self.problem}:" + "".join(
            f"\n  {number}. {error}" for number, error in enumerate(self.errors, start=1)
        )

    def __reduce__(self) -> tuple[object, ...]:
        return DataErrors, (self.errors,)


def raise_all(errors: Sequence[RaycommendError]) -> None:
    """Raise the error, or all of them as one; without any do nothing."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise DataErrors(errors)


class BundleError(RaycommendError):
    """A bundle or a registry is missing, broken or of another format."""


class GateRefused(RaycommendError):
    """A challenger did not beat the incumbent; nothing was changed."""

    exit_code = 3
