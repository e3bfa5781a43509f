from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.features.item_fields import UNKNOWN
from recsys.model.item_encoder import NO_ID, ItemEncoder, id_rows_of

TEXTS = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))


def encoder(dim: int = 4, id_dropout: float = 0.0) -> ItemEncoder:
    torch.manual_seed(1)
    return ItemEncoder(8, dim, 5, 3, id_dropout)


def rows(*ids: int) -> torch.Tensor:
    """Items of whose fields nothing is known."""
    return torch.tensor([[row, UNKNOWN, UNKNOWN] for row in ids])


def of_text(items: ItemEncoder, texts: torch.Tensor) -> torch.Tensor:
    return items(texts, rows(*[NO_ID] * len(texts)))


def test_vectors_have_length_1() -> None:
    vectors = encoder()(TEXTS, rows(0, 1, 2, 3, 4, NO_ID))
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(6))


def test_an_item_without_an_id_is_its_text_alone() -> None:
    items = encoder()
    vectors = items(TEXTS, rows(0, NO_ID, 1, NO_ID, 2, 3))
    alone = of_text(items, TEXTS)
    for row, has_id in enumerate([True, False, True, False, True, True]):
        assert torch.allclose(vectors[row], alone[row]) is not has_id
    expected = torch.nn.functional.normalize(items.project(TEXTS), dim=-1)
    torch.testing.assert_close(alone, expected)


def test_in_training_ids_are_hidden_at_their_share_and_else_never() -> None:
    items = encoder(id_dropout=0.3)
    same, texts = rows(*[0] * 2_000), TEXTS[:1].expand(2_000, -1)
    torch.manual_seed(0)
    hidden = (items(texts, same) - of_text(items, TEXTS[:1])).abs().max(dim=1).values < 1e-6
    assert 0.25 < hidden.float().mean() < 0.35
    items.eval()
    assert not torch.allclose(items(TEXTS[:1], same[:1]), of_text(items, TEXTS[:1]))
    torch.testing.assert_close(items(TEXTS, same[:6]), items(TEXTS, same[:6]))


def test_a_hidden_id_gets_no_gradient() -> None:
    items = encoder(id_dropout=1.0)
    items(TEXTS, rows(0, 1, 2, 3, 4, 4)).sum().backward()
    assert items.ids.weight.grad is not None
    assert (items.ids.weight.grad == 0).all()
    assert items.gate.grad == 0


def test_fields_shift_an_item_with_and_without_an_id() -> None:
    items = encoder()
    with torch.no_grad():
        items.fields.weight[1:].normal_()
    known = torch.tensor([[0, 1, UNKNOWN], [0, UNKNOWN, 2], [NO_ID, 1, 2], [NO_ID, 1, 2]])
    text = TEXTS[:1].expand(4, -1)
    expected = items.project(TEXTS[:1]) + torch.stack(
        [
            items.ids.weight[0] + items.fields.weight[1],
            items.ids.weight[0] + items.fields.weight[2],
            items.fields.weight[1] + items.fields.weight[2],
            items.fields.weight[1] + items.fields.weight[2],
        ]
    )
    expected = torch.nn.functional.normalize(expected, dim=-1)
    torch.testing.assert_close(items(text, known), expected)
    torch.testing.assert_close(items.without_ids(text[2:], known[2:, 1:]), expected[2:])


def test_an_unknown_field_learns_nothing_and_a_recipe_may_have_none() -> None:
    items = encoder()
    items(TEXTS, torch.tensor([[0, UNKNOWN, 1]] * 6))[:, 0].sum().backward()
    assert items.fields.weight.grad is not None
    assert items.fields.weight.grad[UNKNOWN].eq(0).all()
    assert items.fields.weight.grad[1].ne(0).any()
    items.zero_grad()
    items(TEXTS, torch.zeros(6, 1, dtype=torch.long))[:, 0].sum().backward()
    assert items.fields.weight.grad.eq(0).all()  # and is there: workers exchange it


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
        found = self.cosines(of_text(items, texts).detach())
        torch.testing.assert_close(found, self.cosines(texts - texts.mean(0)), atol=1e-4, rtol=0)

    def test_with_less_room_the_main_axes_stay(self) -> None:
        torch.manual_seed(0)
        signal, noise = torch.randn(200, 2) @ torch.randn(2, 8), 0.01 * torch.randn(200, 8)
        texts = signal + noise
        items = encoder(2)
        items.start_from(texts.numpy())
        found = self.cosines(of_text(items, texts).detach())
        expected = self.cosines(texts - texts.mean(0))
        assert (found - expected).abs().median() < 0.02

    def test_whitened_axes_spread_alike(self) -> None:
        texts = torch.randn(500, 8, generator=torch.Generator().manual_seed(4))
        texts = texts * torch.tensor([8.0, 4, 2, 1, 1, 1, 1, 1]) + 3
        items = encoder(4)
        spreads = []
        for whitening in (0.0, 0.5, 1.0):
            items.start_from(texts.numpy(), whitening)
            projected = items.project(texts).detach()
            torch.testing.assert_close(projected.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
            spreads.append(projected.std(0) / projected.std(0)[0])
        as_they_are, half, whole = spreads
        torch.testing.assert_close(half, as_they_are.sqrt(), atol=1e-3, rtol=0)
        torch.testing.assert_close(whole, torch.ones(4), atol=1e-3, rtol=0)

    def test_an_axis_without_variance_is_not_made_large(self) -> None:
        texts = torch.randn(50, 2, generator=torch.Generator().manual_seed(5)) @ torch.randn(2, 8)
        items = encoder(8)
        items.start_from(texts.numpy(), 1.0)
        projected = items.project(texts)
        assert torch.isfinite(projected).all()
        assert (projected[:, 2:].abs() < 0.01 * projected.abs().max()).all()

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
    items = encoder()
    items.start_from(np.ones((1, 8), dtype=np.float32))
    assert torch.isfinite(of_text(items, torch.ones(1, 8))).all()
    items.start_from(np.ones((3, 8), dtype=np.float32))
    assert torch.isfinite(of_text(items, torch.ones(1, 8))).all()
