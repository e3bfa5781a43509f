"""What a well-formed request may still not ask for: another user, or more than the limits."""

from __future__ import annotations

from collections.abc import Callable

from recsys.config import Serve
from serve.models.arms import Arms
from serve.models.objectives import objectives_of
from serve.observability.trace import current
from serve.schemas.events import Event, Events
from serve.schemas.problems import Forbidden, Refused
from serve.schemas.requests import RankRequest, RecommendRequest

#: Raw user id -> pseudonym.
Pseudonym = Callable[[str], str]


def check_caller(request: RecommendRequest | RankRequest, pseudonym: Pseudonym) -> None:
    """Refuse a request about a user whom the caller may not ask for.

    Raises:
        Forbidden: the token is another user's, or the key lacks the right `explain`.
    """
    caller, user_id = current().caller, request.user_id
    if user_id is None:
        return
    if caller.user and not caller.speaks_for(pseudonym(user_id)):
        raise Forbidden(("user_id",), "this token is another user's")
    if request.explain and not caller.may("explain"):
        msg = "tells what a user did, and this key lacks the right `explain`"
        raise Forbidden(("explain",), msg)


def check_events(request: Event | Events, pseudonym: Pseudonym) -> None:
    """Refuse events of a user whom the caller may not write for.

    Raises:
        Forbidden: the token is another user's.
    """
    caller = current().caller
    if not caller.user:
        return
    single = isinstance(request, Event)
    for place, event in enumerate(request.each):
        if isinstance(event, Event) and not caller.speaks_for(pseudonym(event.user_id)):
            at = ("user_id",) if single else ("events", place, "user_id")
            raise Forbidden(at, "this token is another user's")


def check_recommend(request: RecommendRequest, arms: Arms, limits: Serve) -> None:
    """Refuse a list that is too long, or rules that an exploring arm cannot follow.

    Raises:
        Refused: as above.
    """
    if request.k is not None and request.k > limits.max_k:
        raise Refused(("k",), f"at most {limits.max_k}", kind="too_large")
    if arms.explores:
        _check_no_rules(request)


def check_objective(request: RecommendRequest | RankRequest, arms: Arms) -> None:
    """Refuse an objective that some arm cannot tell: all users get the same refusals.

    Raises:
        Refused: a bundle has no outcome heads, or their log does not tell so much.
    """
    asked = request.objective
    if asked is None or asked == "relevance":
        return
    for each in arms.answering:
        if asked not in (known := objectives_of(each.model.outcomes)):
            msg = f"{each.model.version} cannot order lists so: use {' or '.join(known)}"
            raise Refused(("objective",), msg, kind="objective")


def check_rank(request: RankRequest, limits: Serve) -> None:
    """Refuse too many candidates.

    Raises:
        Refused: as above.
    """
    most = limits.max_candidates
    if len(request.candidates) > most:
        raise Refused(("candidates",), f"at most {most} candidates", kind="too_many")
    if request.k is not None and request.k > most:
        raise Refused(("k",), f"at most {most}", kind="too_large")


def _check_no_rules(request: RecommendRequest) -> None:
    """Refuse rearranging rules, whichever arm is the user's: all users get the same refusals.

    Raises:
        Refused: the propensities of a rearranged list are not known.
    """
    for name, is_given in (
        ("diversity", bool(request.diversity)),
        ("max_per_category", request.max_per_category is not None),
    ):
        if is_given:
            msg = "lists are drawn here (`serve.arms`, exploration), and are not rearranged"
            raise Refused((name,), f"{msg}; leave it out", kind="explores")
