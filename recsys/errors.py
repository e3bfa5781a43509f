"""Errors that a user can act on: where it is wrong, what is wrong, and the mend."""

from __future__ import annotations


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
    (`cause`; of a training run, `controller_failure` or `worker_failures`) is looked at instead. Of
    several workers' errors one may be ours and the others only follow from it.
    """
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        held = [getattr(each, name, None) for name in ("cause", "controller_failure")]
        if isinstance(each, RaycommendError) and not any(held):
            return each
        failures = getattr(each, "worker_failures", None) or {}
        waiting += [*held, *failures.values(), each.__cause__, each.__context__]
    return None


class RecipeError(RaycommendError):
    """The recipe cannot be read or contradicts itself."""


class DataError(RaycommendError):
    """The log or the catalogue cannot be used as it is."""


class BundleError(RaycommendError):
    """A bundle or a registry is missing, broken or of another format."""


class GateRefused(RaycommendError):
    """A challenger did not beat the incumbent; nothing was changed."""

    exit_code = 3
