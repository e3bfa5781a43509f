"""Texts to vectors by the bundle's language model."""

from __future__ import annotations

import numpy as np

from recsys.recommender.text_encoder import TextEncoder


class TestTextEncoder:
    def test_texts_are_encoded_alike_in_any_company(self, encoder: TextEncoder) -> None:
        texts = ["red cup 1", "lamp", "a new item, acme", "blue pen 7, globex"] * 20
        together = encoder.encode(texts, batch_size=7)
        assert together.shape == (80, encoder.dim)
        for row in (0, 1, 2, 3, 77):
            np.testing.assert_allclose(together[row], encoder.encode([texts[row]])[0], atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
        assert encoder.encode([]).shape == (0, encoder.dim)

    def test_the_template_is_the_recipes(self, encoder: TextEncoder) -> None:
        assert encoder.text_of({"title": " red  cup", "brand": "acme"}) == "red cup, acme"
        assert encoder.text_of({"colour": "red"}) == ""
