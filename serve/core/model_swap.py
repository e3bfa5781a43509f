"""Swap what is served: load other bundles aside, keep the last good one where one is broken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from recsys.config import Serve
from recsys.errors import BundleError, RaycommendError
from recsys.storage.location import Place, place_of
from serve.core.bundle_loader import BundleLoader
from serve.models.arms import DEFAULT_ARM, Arms, ResolvedArm, ServedArm
from serve.models.live_arms import LiveArms
from serve.models.objectives import check_objectives
from serve.schemas.problems import Unavailable

logger = logging.getLogger("ray.serve")


class ModelSwap:
    """Replaces the arms, one swap at a time.

    Args:
        live: what is served.
        loader: loads and tries bundles.
        limits: the recipe's `serve`.

    Attributes:
        failed_update: why what was sent last is not what is served; None if it is.
    """

    def __init__(self, live: LiveArms, loader: BundleLoader, limits: Serve) -> None:
        self._live, self._loader, self._limits = live, loader, limits
        self._swapping = asyncio.Lock()
        self.failed_update: str | None = None

    async def load(self, place: Place, version: str, arms: Sequence[ResolvedArm] = ()) -> None:
        """Serve other bundles or arms: load and try them aside, then swap.

        An arm whose new bundle is broken keeps its last good one. Where it has none, nothing is
        changed.

        Args:
            place: where the bundle lies that the service is started with.
            version: which one is meant: a folder's content may be replaced.
            arms: of the recipe; none: that bundle answers everybody.

        Raises:
            Exception: whatever loading raises, but only if there is no last good one.
        """
        async with self._swapping:
            now = self._live.or_none
            loaded = {} if now is None else {(s.place, s.bundle.version): s for s in now.bundles}
            last_good = {} if now is None else {each.name: each for each in now.every}
            failed, every = None, []
            for arm in arms or [DEFAULT_ARM]:
                meant = (place, version)
                if arm.bundle:
                    meant = (place_of(arm.bundle), str(arm.version))
                try:
                    if meant not in loaded:
                        loaded[meant] = await self._loader.load(*meant)
                    served = loaded[meant]
                    check_objectives(self._limits, arm, meant[0], served.bundle)
                except Exception as error:
                    if now is None:
                        raise
                    failed = f"arm {arm.name}: {_reason(error)}" if arms else _reason(error)
                    logger.exception("arm %s: %s is not served", arm.name, meant[0])
                    if arm.name not in last_good:
                        self.failed_update = failed
                        return
                    every.append(self._kept(arm, last_good[arm.name]))
                    continue
                every.append(ServedArm(arm, served))
            await self._live.replace(Arms(every, self._limits.arms_salt))
            self.failed_update = failed
            logger.info("serving %s", ", ".join(f"{e.name}: {e.model.version}" for e in every))

    def _kept(self, arm: ResolvedArm, before: ServedArm) -> ServedArm:
        """An arm with its last good bundle; as it was, if that cannot order lists as it is to."""
        try:
            check_objectives(self._limits, arm, before.served.place, before.served.bundle)
        except BundleError:
            return before
        return ServedArm(arm, before.served)


def _reason(error: Exception) -> str:
    """A failed update as `GET /model` reports it: no paths, no stack trace."""
    if isinstance(error, RaycommendError):
        return error.problem
    return str(error) if isinstance(error, Unavailable) else type(error).__name__
