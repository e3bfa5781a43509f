"""Deployment: the language model, which encodes items that the catalogue does not know."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.artifacts.bundle import Bundle
from recsys.config import Storage
from recsys.recommender.text_encoder import TextEncoder as LanguageModel
from recsys.storage.location import place_of
from recsys.storage.node_cache import NodeCache
from serve.observability.metrics import Metrics, NoMetrics

#: The model that is served and, during a swap, the next one.
_MAX_LOADED = 2
#: Calls that are encoded together; no call waits for others to come. On one core of a CPU one text
#: at a time makes 61 texts a second, 8 make 171, 16 make 196 (MiniLM, 16 tokens).
_MAX_BATCH = 8


@dataclass(frozen=True)
class Call:
    """A waiting call.

    Attributes:
        place: of the bundle.
        version: of the bundle.
        items: fields of each item.
        answer: the vectors, once they are there.
    """

    place: str
    version: str
    items: list[dict[str, str | None]]
    answer: Future[NDArray[np.float32]] = field(default_factory=Future)


class TextEncoder:
    """Encodes new items with the language model of the bundle that the caller names.

    The bundle comes with each call rather than by configuration. So a vector never meets a scorer
    of another bundle, in whatever order the replicas learn of a new one.

    Args:
        metrics: makes the metrics that count the calls; called here, as Ray's belong to a replica.
        cache: of this node, for bundles at URIs.
    """

    def __init__(
        self, metrics: Callable[[], Metrics] = NoMetrics, cache: NodeCache | None = None
    ) -> None:
        self._cache = cache or Storage().cache
        torch.set_num_threads(1)
        self._metrics = metrics()
        self._loaded: OrderedDict[tuple[str, str], LanguageModel] = OrderedDict()
        self._waiting: deque[Call] = deque()
        # One thread: it keeps the event loop free, and two texts at once would not be faster.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")

    async def encode(
        self, place: str, version: str, items: list[dict[str, str | None]]
    ) -> NDArray[np.float32]:
        """[M, H] vectors of the items' texts; rows of NaN for items without any.

        Args:
            place: where the bundle lies, a folder or a URI.
            version: which one is meant.
            items: fields of each item.

        Raises:
            BundleError: the bundle cannot be loaded.
        """
        call = Call(place, version, items)
        self._waiting.append(call)
        self._thread.submit(self._encode_waiting)
        return await asyncio.wrap_future(call.answer)

    def _encode_waiting(self) -> None:
        """Encode the calls that came during the last batch, if no other batch has taken them."""
        of_bundle: dict[tuple[str, str], list[Call]] = {}
        for _ in range(min(_MAX_BATCH, len(self._waiting))):
            call = self._waiting.popleft()
            if call.answer.set_running_or_notify_cancel():  # else its caller has left
                of_bundle.setdefault((call.place, call.version), []).append(call)
        for bundle, together in of_bundle.items():
            try:
                vectors = self._vectors(*bundle, [item for call in together for item in call.items])
                ends = np.cumsum([len(call.items) for call in together])[:-1]
                parts = np.split(vectors, ends)
            except Exception as error:
                for call in together:
                    call.answer.set_exception(error)
            else:
                for call, part in zip(together, parts, strict=True):
                    call.answer.set_result(part)

    def _vectors(
        self, place: str, version: str, items: list[dict[str, str | None]]
    ) -> NDArray[np.float32]:
        model = self._model(place, version)
        texts = [model.text_of(fields) for fields in items]
        filled = [place for place, text in enumerate(texts) if text]
        vectors = np.full((len(items), model.dim), np.nan, dtype=np.float32)
        if filled:
            vectors[filled] = model.encode([texts[place] for place in filled])
        return vectors

    def _model(self, place: str, version: str) -> LanguageModel:
        wanted = (place, version)
        self._metrics.count("text_models_total", result="hit" if wanted in self._loaded else "miss")
        if wanted not in self._loaded:
            local = self._cache.local(place_of(place))
            bundle = Bundle.open(local.folder)
            bundle.must_be(version)
            self._loaded[wanted] = LanguageModel(bundle)
            local.release()
        self._loaded.move_to_end(wanted)
        while len(self._loaded) > _MAX_LOADED:
            self._loaded.popitem(last=False)
        return self._loaded[wanted]
