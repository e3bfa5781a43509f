"""The bundle's language model, for items that come as text.

Legend: n texts, H width of the language model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from recsys.arrays import Float32s
from recsys.artifacts.bundle import ENCODER_DIR, TOKENIZER_DIR, Bundle
from recsys.data.catalogue import item_text
from recsys.errors import BundleError
from recsys.model.language import LanguageModel
from recsys.storage.reading import reading
from recsys.text.pretrained import CONFIG, load_tokenizer, tokenize
from recsys.text.text_store import pad_tokens


class TextEncoder:
    """Item texts to vectors.

    Attributes:
        dim: H.

    Raises:
        BundleError: the language model's configuration or weights are broken.
    """

    def __init__(self, bundle: Bundle) -> None:
        recipe = bundle.recipe
        self.dim = int(bundle.meta["text_dim"])
        self._fields = recipe.data.text_fields
        self._tokenizer = load_tokenizer(bundle.folder / TOKENIZER_DIR, recipe.data.max_tokens)
        config = bundle.folder / ENCODER_DIR / CONFIG
        with reading(config, "restore it from a copy, or write the bundle again", BundleError):
            model = recipe.model
            self._language = LanguageModel(
                config.parent, model.tuning, model.last_n, pretrained=False
            )
            if self._language.dim != self.dim:
                raise ValueError(f"{self._language.dim} wide, of {self.dim}")
        bundle.load_into(self._language, "language.")
        self._language.eval()

    def text_of(self, fields: Mapping[str, str | None]) -> str:
        """The text of an item by the recipe's template; empty if no field of it is filled."""
        return item_text(fields, self._fields)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch_size: int = 64) -> Float32s:
        """[n, H] vectors of some texts."""
        tokens = [np.asarray(ids, dtype=np.int32) for ids in tokenize(self._tokenizer, texts)]
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        order = np.argsort([len(ids) for ids in tokens], kind="stable")
        for low in range(0, len(order), batch_size):
            rows = order[low : low + batch_size]
            ids, mask = pad_tokens([tokens[row] for row in rows])
            vectors[rows] = self._language.upper(self._language.lower(ids, mask), mask).numpy()
        return vectors
