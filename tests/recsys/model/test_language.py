from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from transformers import BertModel, GPT2Config, GPT2Model

from recsys.config import Model
from recsys.errors import RecipeError
from recsys.model.language import LanguageModel, load_language_model
from recsys.text.pretrained import load_tokenizer, tokenize
from recsys.text.text_store import pad_tokens

TEXTS = ["red cup 1, acme", "lamp", "a new item", ""]


@pytest.fixture(scope="module")
def batch(language_folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = tokenize(load_tokenizer(language_folder, 16), TEXTS)
    return pad_tokens([torch.tensor(ids).numpy() for ids in tokens])


@pytest.fixture(scope="module")
def expected(language_folder: Path, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Mean pooling over the whole model's output, as sentence encoders do it."""
    tokens, mask = batch
    whole = BertModel.from_pretrained(language_folder, add_pooling_layer=False).eval()
    with torch.no_grad():
        out = whole(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
    mean = (out * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return torch.nn.functional.normalize(mean, dim=-1)


@pytest.mark.parametrize(
    ("tuning", "last_n", "split"),
    [("frozen", 1, 2), ("lora", 1, 1), ("last_n", 1, 1), ("last_n", 2, 0), ("full", 1, 0)],
)
def test_lower_and_upper_part_are_the_whole_model_at_every_split(
    language_folder: Path, batch: tuple[torch.Tensor, torch.Tensor], expected: torch.Tensor,
    tuning: str, last_n: int, split: int,
) -> None:  # fmt: skip
    language = LanguageModel(language_folder, tuning, last_n).eval()
    tokens, mask = batch
    with torch.no_grad():
        found = language(language.lower(tokens, mask), mask)
    assert language.split == split
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_padding_has_no_influence(
    language_folder: Path, batch: tuple[torch.Tensor, torch.Tensor], expected: torch.Tensor
) -> None:
    language = LanguageModel(language_folder, "last_n", 1).eval()
    tokens, mask = batch
    for row in range(len(TEXTS)):
        length = int(mask[row].sum())
        alone, alone_mask = tokens[row : row + 1, :length], mask[row : row + 1, :length]
        with torch.no_grad():
            found = language(language.lower(alone, alone_mask), alone_mask)[0]
        torch.testing.assert_close(found, expected[row], atol=1e-5, rtol=1e-4)


def test_mixed_precision_is_near_and_its_vectors_are_float32(
    language_folder: Path, batch: tuple[torch.Tensor, torch.Tensor], expected: torch.Tensor
) -> None:
    language = LanguageModel(language_folder, "full", 1).eval()
    language.in_bfloat16 = True
    tokens, mask = batch
    found = language(language.lower(tokens, mask), mask)
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=0)
    assert not torch.equal(found, expected)
    found.sum().backward()
    assert {value.dtype for value in language.trained_layers.parameters()} == {torch.float32}
    assert all(value.grad is not None for value in language.trained_layers.parameters())


@pytest.mark.parametrize(("tuning", "num_trained"), [("frozen", 0), ("last_n", 1), ("full", 2)])
def test_only_the_upper_layers_get_a_gradient(
    language_folder: Path, batch: tuple[torch.Tensor, torch.Tensor], tuning: str, num_trained: int
) -> None:
    language = LanguageModel(language_folder, tuning, 1)
    tokens, mask = batch
    hidden = language.lower(tokens, mask)
    assert not hidden.requires_grad
    vectors = language.upper(hidden, mask)
    assert vectors.requires_grad is (num_trained > 0)
    if num_trained:
        (vectors * torch.randn_like(vectors)).sum().backward()
    assert len(language.trained_layers) == num_trained
    for name, parameter in language.named_parameters():
        is_trained = name.startswith("trained_layers.")
        assert parameter.requires_grad is is_trained
        assert (parameter.grad is not None) is is_trained


def test_more_layers_than_there_are_cannot_be_trained(language_folder: Path) -> None:
    with pytest.raises(RecipeError, match="has 2 layers") as error:
        LanguageModel(language_folder, "last_n", 3)
    assert (error.value.field, error.value.value) == ("model.last_n", 3)


def test_without_pretrained_weights_it_has_the_same_shape(language_folder: Path) -> None:
    filled = LanguageModel(language_folder, "last_n", 1)
    empty = LanguageModel(language_folder, "last_n", 1, pretrained=False)
    empty.load_state_dict(filled.state_dict())
    for name, value in empty.state_dict().items():
        assert torch.equal(value, filled.state_dict()[name])


def test_a_model_laid_out_otherwise_is_refused(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8)
    GPT2Model(config).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="a gpt2 is not laid out like BERT") as error:
        LanguageModel(tmp_path, "last_n", 1)
    assert error.value.field == "model.language_model"


class TestLora:
    @pytest.fixture
    def language(self, language_folder: Path) -> LanguageModel:
        torch.manual_seed(0)
        return load_language_model(Model(language_model=str(language_folder), tuning="lora"))

    def test_at_first_the_updates_change_nothing_and_they_alone_learn(
        self, language: LanguageModel, batch: tuple[torch.Tensor, torch.Tensor],
        expected: torch.Tensor,
    ) -> None:  # fmt: skip
        tokens, mask = batch
        vectors = language.eval()(language.lower(tokens, mask), mask)
        torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-4)
        (vectors * torch.randn_like(vectors)).sum().backward()
        learning = {name for name, value in language.named_parameters() if value.requires_grad}
        assert learning
        assert all("lora_" in name for name in learning)
        parameters = dict(language.named_parameters())
        assert all(parameters[name].grad is not None for name in learning)

    def test_merged_it_is_a_plain_model_with_the_same_vectors(
        self, language_folder: Path, language: LanguageModel,
        batch: tuple[torch.Tensor, torch.Tensor], expected: torch.Tensor,
    ) -> None:  # fmt: skip
        with torch.no_grad():
            for name, parameter in language.named_parameters():
                if "lora_" in name:
                    parameter.copy_(0.3 * torch.randn_like(parameter))
        tokens, mask = batch
        language.eval()
        with torch.no_grad():
            before = language(language.lower(tokens, mask), mask)
            language.merge_adapters()
        assert (before - expected).abs().max() > 0.01
        plain = LanguageModel(language_folder, "lora", 1, pretrained=False).eval()
        plain.load_state_dict(language.state_dict())
        with torch.no_grad():
            found = plain(plain.lower(tokens, mask), mask)
        torch.testing.assert_close(found, before, atol=1e-5, rtol=1e-4)

    def test_a_missing_package_is_named(
        self, language_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "peft", None)
        with pytest.raises(RecipeError, match=r"raycommend\[lora\]"):
            load_language_model(Model(language_model=str(language_folder), tuning="lora"))
