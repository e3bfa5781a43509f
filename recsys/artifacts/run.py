"""A run: where everything that a recipe's jobs write lies, and what of it is there.

Imports torch only where a bundle or a winner is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.artifacts.registry import Registry
from recsys.config import Recipe
from recsys.data.feedback import Feedback
from recsys.preparation.prepared import PREPARED, Prepared
from recsys.storage.mirror import Mirror
from recsys.storage.seals import json_sha256, text_sha256
from recsys.text.pretrained import fingerprint, locate
from recsys.training.pretraining.adapted import LANGUAGE_DIR, PRETRAIN_FILE, adapted, bring_adapted

if TYPE_CHECKING:
    from recsys.artifacts.bundle import Bundle
    from recsys.artifacts.winner import Winner

#: Folders in a run's folder: the trainings, the text stores, vectors of texts by trained models.
TRAININGS, TEXT_STORES, TEXT_VECTORS = "ray", "text_store", "text_vectors"
#: Folder of the outcome heads in a run's folder, and of the rates of users in that.
HEADS, HEADS_USERS = "outcome_heads", "users"


@dataclass(frozen=True)
class Run:
    """The run of a recipe. Files are read when they are asked for, prepared data once.

    Attributes:
        recipe: of the run. Where the language model is adapted first, `trained` has the run whose
            recipe names the adapted one.
    """

    recipe: Recipe

    @staticmethod
    def open(recipe: Recipe) -> Run:
        """The run in the recipe's folder, which need not be there yet."""
        return Run(recipe)

    def with_recipe(self, recipe: Recipe) -> Run:
        """The same run, trained under another recipe: that of a trial, or of the winner."""
        other = Run(recipe)
        if "prepared" in self.__dict__:
            other.__dict__["prepared"] = self.prepared
        return other

    @property
    def root(self) -> Path:
        """The run's folder, absolute."""
        return self.recipe.root

    @property
    def prepared_folder(self) -> Path:
        """What `prepare` writes."""
        return self.root / PREPARED

    @property
    def language_folder(self) -> Path:
        """The adapted language model, which `pretrain` writes."""
        return self.root / LANGUAGE_DIR

    @property
    def pretrain_file(self) -> Path:
        """What is known of the adapted language model."""
        return self.root / PRETRAIN_FILE

    @property
    def trainings(self) -> Path:
        """The folders of Ray Train and Ray Tune, a training or a search each."""
        return self.root / TRAININGS

    @property
    def winner_file(self) -> Path:
        """Which checkpoint goes on to the bundle; `train` and `tune` write it."""
        return self.root / "winner.json"

    @property
    def trials_file(self) -> Path:
        """All epochs of all trials of the last search; `tune` writes it."""
        return self.root / "trials.parquet"

    @property
    def trials_page(self) -> Path:
        """The same to look at."""
        return self.root / "trials.html"

    @property
    def heads_folder(self) -> Path:
        """The outcome heads, which the last part of `train` and `tune` fits."""
        return self.root / HEADS

    @property
    def bundle_folder(self) -> Path:
        """What `embed` writes."""
        return self.root / "bundle"

    @property
    def report_file(self) -> Path:
        """What `evaluate` finds."""
        return self.root / "report.json"

    @property
    def rows_file(self) -> Path:
        """The report's metrics of each question."""
        return self.root / "evaluation_rows.parquet"

    @property
    def examples_file(self) -> Path:
        """Ten users with their lists; `evaluate` writes it, `compact` takes erased users out."""
        return self.root / "examples.json"

    @property
    def decision_file(self) -> Path:
        """What the gate said of the run's bundle, and why; `promote` writes it."""
        return self.root / "decision.json"

    @property
    def page_file(self) -> Path:
        """All of it for people, see `recsys.reporting`."""
        return self.root / "report.html"

    def bring_results(self) -> None:
        """Have the files here that jobs write at their ends, where the run lies in a store."""
        results = (self.pretrain_file, self.winner_file, self.trials_file, self.trials_page)
        found = (self.report_file, self.rows_file, self.examples_file, self.decision_file)
        self.recipe.shared.bring_files([*results, *found])

    @property
    def feedback(self) -> Feedback:
        """What the service gives back."""
        return Feedback.of(self.root)

    @property
    def feedback_mirror(self) -> Mirror | None:
        """The folder of `feedback` as a mirror of the recipe's URI; None: it has none."""
        location = self.recipe.feedback
        return None if location is None else Mirror(location, self.feedback.folder)

    @property
    def registry(self) -> Registry:
        """The registry that the run's bundle goes to."""
        return Registry.of(self.recipe)

    @cached_property
    def prepared(self) -> Prepared:
        """The prepared data, whatever they were prepared under.

        Raises:
            DataError: `prepare` has not run, or not to its end.
        """
        self.recipe.shared.bring(self.prepared_folder)
        return Prepared.open(self.root)

    def matching_prepared(self) -> Prepared:
        """The prepared data, if they were prepared under this recipe.

        Raises:
            DataError: they were not, see `Prepared.check`; or there are none.
        """
        self.prepared.check(self.recipe)
        return self.prepared

    def check_trainable(self) -> None:
        """Refuse prepared data that this recipe's workers cannot train on.

        Raises:
            DataError: see `matching_prepared`.
            RecipeError: there are fewer history shards than workers.
        """
        self.matching_prepared().check_workers(self.recipe.train.most_workers)

    @cached_property
    def trained(self) -> Run:
        """The run with the language model that training begins from: the adapted one, if any.

        Raises:
            DataError: the recipe asks for an adapted one, and none is there that fits.
        """
        bring_adapted(self.recipe)
        self.bring_results()
        return self.with_recipe(adapted(self.recipe, self.prepared))

    @cached_property
    def text_store_folder(self) -> Path:
        """The hidden states of this catalogue by this language model, up to its split."""
        return self.root / TEXT_STORES / f"{self.prepared.catalogue.fingerprint}-{self._encoding}"

    @property
    def _encoding(self) -> str:
        """How texts become hidden states, whatever the catalogue."""
        model = self.recipe.model
        language = fingerprint(locate(model.language_model))
        split = model.tuning if model.tuning in ("frozen", "full") else f"last{model.last_n}"
        return f"{language}-{split}-{self.recipe.data.max_tokens}"

    def earlier_text_stores(self) -> list[Path]:
        """Text stores of other catalogues by the same language model."""
        folder = self.root / TEXT_STORES
        found = [folder / name for name in self.recipe.shared.names(folder)]
        return [
            path for path in found
            if path.name.endswith(f"-{self._encoding}") and path != self.text_store_folder
        ]  # fmt: skip

    def text_vectors_folder(self, trained: str) -> Path:
        """The vectors of texts by trained layers.

        Args:
            trained: digest of their weights.
        """
        return self.root / TEXT_VECTORS / json_sha256([self._encoding, trained])[:16]

    def training_name(self, kind: str, *sections: str, start: str | None = None) -> str:
        """Name of a training or a search: the same recipe and data resume, others start afresh.

        Args:
            kind: `train`, `tune`, `retrain` or `warm`.
            sections: of the recipe, beside `data`, `model` and `train`, that make a difference.
            start: what training begins from, and how; None: the pretrained language model.
        """
        parts = [
            kind,
            self.recipe.fingerprint("data", "model", "train", *sections),
            # A model's folder may be rewritten under its name.
            fingerprint(locate(self.recipe.model.language_model))[:8],
            self.prepared.summary["data_fingerprint"][:8],
            *([] if start is None else [text_sha256(start)[:8]]),
        ]
        return "-".join(parts)

    @property
    def winner(self) -> Winner:
        """The winning recipe and its checkpoint.

        Raises:
            DataError: nothing was trained yet, or not on these data, or on another language model.
        """
        from recsys.artifacts.winner import Winner

        bring_adapted(self.recipe)
        self.bring_results()
        return Winner.read(self.winner_file, self.prepared, self.recipe.shared)

    def bundle(self, *, verify: bool = True) -> Bundle:
        """The run's bundle.

        Raises:
            BundleError: there is none, or it is broken.
        """
        from recsys.artifacts.bundle import Bundle

        self.recipe.shared.bring(self.bundle_folder)
        return Bundle.open(self.bundle_folder, verify=verify)
