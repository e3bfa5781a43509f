"""The language model in two parts: frozen lower layers, computed once per text, and trained ones.

Legend: T texts, L tokens (padded), H width of the language model.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from recsys.config import Model
from recsys.errors import DataError, RecipeError
from recsys.storage.weights import save_weights
from recsys.text.pretrained import CONFIG, TOKENIZER, WEIGHTS, locate

#: Texts that a CPU encodes together, about, and into how many such groups a batch is split at most:
#: smaller products cost more than the padding that they save.
TEXTS_OF_LIKE_LENGTH, MOST_GROUPS = 24, 4


class LanguageModel(nn.Module):
    """A BERT-like encoder whose first `split` layers are frozen.

    `frozen` trains nothing, `last_n` the last n layers, `full` every layer, `lora` low-rank updates
    of the last n layers' attention (see `add_adapters`). The token embeddings are always frozen:
    they are half of a small model's weights, and few of them occur in a shop's texts.

    Args:
        folder: the model's folder (see `language_model.locate`).
        tuning: `frozen`, `lora`, `last_n` or `full`.
        last_n: number of trained layers with `last_n` and `lora`.
        pretrained: read the folder's weights; else only its config, for weights that come later.
        section: of the recipe that `last_n` stands in.
    """

    def __init__(
        self,
        folder: Path,
        tuning: str,
        last_n: int,
        *,
        pretrained: bool = True,
        section: str = "model",
    ) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        # Without the pooler: DDP stops at parameters that never get a gradient.
        options = {"add_pooling_layer": False, "attn_implementation": "sdpa"}
        try:
            config = AutoConfig.from_pretrained(folder)
        except Exception as error:  # a dozen types; each means: this is no such file
            raise DataError(
                f"not the config of a language model: {str(error)[:300]}", where=folder / CONFIG,
                fix="restore the file from a copy, or save the model again",
            ) from error  # fmt: skip
        try:
            if pretrained:
                model = AutoModel.from_pretrained(folder, **options)
            else:
                model = AutoModel.from_config(config, **options)  # type: ignore[no-untyped-call]
        except TypeError:  # it knows no pooler
            model = None
        if not hasattr(model, "embeddings") or not hasattr(
            getattr(model, "encoder", None), "layer"
        ):
            raise RecipeError(
                f"a {config.model_type} is not laid out like BERT (embeddings, encoder.layer)",
                where=folder, field="model.language_model",
                fix="use a BERT- or RoBERTa-like encoder",
            )  # fmt: skip
        layers = list(model.encoder.layer)
        if tuning in ("last_n", "lora") and last_n > len(layers):
            raise RecipeError(
                f"the language model has {len(layers)} layers", where=folder,
                field=f"{section}.last_n", value=last_n, fix=f"use 1 to {len(layers)}",
            )  # fmt: skip
        num_trained = {"frozen": 0, "lora": last_n, "last_n": last_n, "full": len(layers)}[tuning]
        self.split = len(layers) - num_trained
        #: Whether the trained layers multiply in bfloat16; their weights are float32 always.
        self.in_bfloat16 = False
        #: See `recsys.model.sharding`: then all workers call the layers equally often.
        self.is_sharded = False
        self.dim = int(model.config.hidden_size)
        self.embeddings = model.embeddings.requires_grad_(False)
        self.frozen_layers = nn.ModuleList(layers[: self.split]).requires_grad_(False)
        self.trained_layers = nn.ModuleList(layers[self.split :])

    @torch.no_grad()
    def lower(self, tokens_TL: Tensor, mask_TL: Tensor) -> Tensor:
        """Token ids [T, L], mask (True = token) -> states [T, L, H] after the frozen layers."""
        hidden = self.embeddings(input_ids=tokens_TL)
        return _run(self.frozen_layers, hidden, mask_TL)

    def states(self, hidden_TLH: Tensor, mask_TL: Tensor) -> Tensor:
        """Hidden states at the split -> those of the last layer [T, L, H], in float32."""
        with torch.autocast(hidden_TLH.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            return _run(self.trained_layers, hidden_TLH, mask_TL).float()

    def upper(self, hidden_TLH: Tensor, mask_TL: Tensor) -> Tensor:
        """Hidden states at the split -> text vectors [T, H]: mean over tokens, of length 1.

        A CPU gets texts of like length together, so that it computes less padding; a GPU would wait
        for the lengths.
        """
        num_groups = len(mask_TL) // TEXTS_OF_LIKE_LENGTH
        if num_groups < 2 or hidden_TLH.device.type != "cpu" or self.is_sharded:
            return self._pooled(hidden_TLH, mask_TL)
        lengths = mask_TL.sum(1)
        order = torch.argsort(lengths)
        parts = []
        for rows in order.tensor_split(min(num_groups, MOST_GROUPS)):
            width = int(lengths[rows[-1]])
            parts.append(self._pooled(hidden_TLH[rows, :width], mask_TL[rows, :width]))
        return torch.cat(parts)[torch.argsort(order)]

    def _pooled(self, hidden_TLH: Tensor, mask_TL: Tensor) -> Tensor:
        hidden = self.states(hidden_TLH, mask_TL)
        weights = mask_TL.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        return nn.functional.normalize(mean, dim=-1)

    def forward(self, hidden_TLH: Tensor, mask_TL: Tensor) -> Tensor:
        """The trained part: see `upper`."""
        return self.upper(hidden_TLH, mask_TL)

    def add_adapters(self, rank: int) -> None:
        """Freeze the upper layers too, and train low-rank updates of their queries and values.

        They are LoRA's (arXiv 2106.09685), scaled by 2, and start at zero.

        Raises:
            RecipeError: the package `peft` is missing.
        """
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError:
            raise RecipeError(
                "low-rank updates need the package `peft`", field="model.tuning", value="lora",
                fix="install raycommend[lora], or use last_n",
            ) from None  # fmt: skip

        self.trained_layers.requires_grad_(False)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["query", "value"])
        inject_adapter_in_model(config, self.trained_layers)

    def merge_adapters(self) -> None:
        """Fold the updates into the layers, so that a plain language model is served."""
        for layer in self.trained_layers.modules():
            for name, part in list(layer.named_children()):
                if hasattr(part, "base_layer"):
                    part.merge()  # type: ignore[operator]
                    setattr(layer, name, part.base_layer)

    def save(self, out: Path, folder: Path) -> None:
        """Write it as a language model of its own, in Hugging Face's layout.

        Args:
            out: an existing folder.
            folder: where it was read from; config and tokenizer are taken from there.
        """
        layers = [*self.frozen_layers, *self.trained_layers]
        parts = {"embeddings": self.embeddings}
        parts |= {f"encoder.layer.{number}": layer for number, layer in enumerate(layers)}
        weights = {
            f"{part}.{name}": value.detach().cpu().contiguous()
            for part, module in parts.items()
            for name, value in module.state_dict().items()
        }
        save_weights(weights, out / WEIGHTS, {"format": "pt"})
        for name in (CONFIG, TOKENIZER):
            shutil.copyfile(folder / name, out / name)


def _run(layers: nn.ModuleList, hidden: Tensor, mask_TL: Tensor) -> Tensor:
    attend = mask_TL[:, None, None, :].expand(-1, 1, mask_TL.shape[1], -1)
    for layer in layers:
        out = layer(hidden, attention_mask=attend)
        hidden = out[0] if isinstance(out, tuple) else out
    return hidden


def load_language_model(model: Model) -> LanguageModel:
    """The language model that a recipe names, ready to be trained as it says."""
    language = LanguageModel(locate(model.language_model), model.tuning, model.last_n)
    if model.tuning == "lora":
        language.add_adapters(model.lora_rank)
    return language
