from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.model.item_encoder import NO_ID, ItemEncoder, id_rows_of

TEXTS = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))


def encoder(dim: int = 4, id_dropout: float = 0.0) -> ItemEncoder:
    torch.manual_seed(1)
    return ItemEncoder(8, dim, 5, id_dropout)


def test_vectors_have_length_1() -> None:
    vectors = encoder()(TEXTS, torch.tensor([0, 1, 2, 3, 4, NO_ID]))
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(6))


def test_an_item_without_an_id_is_its_text_alone() -> None:
    items = encoder()
    vectors = items(TEXTS, torch.tensor([0, NO_ID, 1, NO_ID, 2, 3]))
    of_text = items.of_text(TEXTS)
    for row, has_id in enumerate([True, False, True, False, True, True]):
        assert torch.allclose(vectors[row], of_text[row]) is not has_id
    expected = torch.nn.functional.normalize(items.project(TEXTS), dim=-1)
    torch.testing.assert_close(of_text, expected)


def test_in_training_ids_are_hidden_at_their_share_and_else_never() -> None:
    items = encoder(id_dropout=0.3)
    rows, texts = torch.zeros(2_000, dtype=torch.long), TEXTS[:1].expand(2_000, -1)
    torch.manual_seed(0)
    hidden = (items(texts, rows) - items.of_text(TEXTS[:1])).abs().max(dim=1).values < 1e-6
    assert 0.25 < hidden.float().mean() < 0.35
    items.eval()
    assert not torch.allclose(items(TEXTS[:1], rows[:1]), items.of_text(TEXTS[:1]))
    torch.testing.assert_close(items(TEXTS, rows[:6]), items(TEXTS, rows[:6]))


def test_a_hidden_id_gets_no_gradient() -> None:
    items = encoder(id_dropout=1.0)
    items(TEXTS, torch.arange(6).clamp(max=4)).sum().backward()
    assert items.ids.weight.grad is not None
    assert (items.ids.weight.grad == 0).all()
    assert items.gate.grad == 0


class TestStart:
    """The projection starts as the leading axes of the texts, so it keeps what is known of them."""

    def cosines(self, vectors: torch.Tensor) -> torch.Tensor:
        unit = torch.nn.functional.normalize(vectors, dim=-1)
        return unit @ unit.T

    @pytest.mark.parametrize("dim", [8, 12])
    def test_with_room_for_all_axes_the_geometry_stays(self, dim: int) -> None:
        texts = torch.randn(50, 8, generator=torch.Generator().manual_seed(3)) + 1
        items = encoder(dim)
        items.start_from(texts.numpy())
        found = self.cosines(items.of_text(texts).detach())
        torch.testing.assert_close(found, self.cosines(texts - texts.mean(0)), atol=1e-4, rtol=0)

    def test_with_less_room_the_main_axes_stay(self) -> None:
        torch.manual_seed(0)
        signal, noise = torch.randn(200, 2) @ torch.randn(2, 8), 0.01 * torch.randn(200, 8)
        texts = signal + noise
        items = encoder(2)
        items.start_from(texts.numpy())
        found = self.cosines(items.of_text(texts).detach())
        expected = self.cosines(texts - texts.mean(0))
        assert (found - expected).abs().median() < 0.02

    def test_it_is_the_same_every_time(self) -> None:
        first, second = encoder(), encoder()
        with torch.no_grad():
            second.project.weight.normal_()
        for items in (first, second):
            items.start_from(TEXTS.numpy())
        assert torch.equal(first.project.weight, second.project.weight)
        assert torch.equal(first.project.bias, second.project.bias)


def test_items_with_enough_events_have_an_id_row() -> None:
    assert id_rows_of(np.array([5, 4, 9, 0]), 5).tolist() == [0, NO_ID, 1, NO_ID]
    assert id_rows_of(np.array([1, 1]), 9).tolist() == [NO_ID, NO_ID]


def test_a_catalogue_of_one_text_can_be_started_from() -> None:
    encoder = ItemEncoder(8, 4, 1, 0.0)
    encoder.start_from(np.ones((1, 8), dtype=np.float32))
    assert torch.isfinite(encoder.of_text(torch.ones(1, 8))).all()
    encoder.start_from(np.ones((3, 8), dtype=np.float32))
    assert torch.isfinite(encoder.of_text(torch.ones(1, 8))).all()
