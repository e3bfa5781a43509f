"""The last part of `train` and `tune`: exposures -> outcome heads.

One Ray task reads the exposures a day at a time: rates are as of each day's begin, so a day needs
the one before it. It holds the counts of all users and items, and the rows that it learns from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recsys.artifacts.run import HEADS_USERS, Run
from recsys.config import Recipe
from recsys.errors import DataError
from recsys.outcome_heads.fitting import num_days_needed
from recsys.outcome_heads.served import ServedHeads
from recsys.outcomes.joining import EXPOSURES_DIR, SUMMARY_FILE, read_summary
from recsys.preparation.prepared import Prepared
from recsys.storage.outputs import write_json
from recsys.storage.reading import read_json
from recsys.storage.seals import file_hashes, json_sha256

#: Of what the task writes: a change of it, or of what makes it, needs another.
FORMAT = 2
FIT_FILE = "fit.json"


def outcome_steps(run: Run) -> list[str]:
    """What `fit_outcomes` would do, in one line."""
    why = _too_little(run)
    return [
        f"fit no outcome heads: {why}" if why else f"fit outcome heads, write {run.heads_folder}"
    ]


def fit_outcomes(run: Run, in_task: Callable[[Recipe, Path], str] | None = None) -> None:
    """Fit the outcome heads, unless they are fitted already.

    Where the exposures are too few, those of an earlier fit are removed.

    Args:
        run: with exposures or without.
        in_task: runs `fit_in_task`; by default Ray, which must be connected then.
    """
    why = _too_little(run)
    if why:
        print(f"    no outcome heads: {why}", flush=True)
        run.recipe.shared.drop(run.heads_folder)
        return
    told = (in_task or _on_ray)(run.recipe, run.prepared_folder)
    run.recipe.shared.bring(run.heads_folder)
    print(f"    outcome heads: {told}", flush=True)


def _on_ray(recipe: Recipe, prepared: Path) -> str:
    import ray

    task = ray.remote(fit_in_task).options(num_cpus=recipe.train.cpus_per_worker)
    return str(ray.get(task.remote(recipe, prepared)))


def fitted_heads(run: Run) -> ServedHeads | None:
    """The heads that were fitted in a run; None: none were.

    Raises:
        DataError: a file is broken.
    """
    folder = run.heads_folder
    run.recipe.shared.bring(folder)
    if _fitted(folder) is None:
        return None
    return ServedHeads.open(folder, run.prepared.catalogue.items, DataError)


def fit_in_task(chosen: Recipe, prepared_folder: Path) -> str:
    """What the task does; tells what came of it."""
    import torch

    from recsys.outcome_heads.fitting import fit_heads

    run = Run.open(chosen)
    exposures = _exposures(run)
    chosen.shared.bring(prepared_folder)
    prepared = Prepared(prepared_folder)
    items = prepared.catalogue.items
    fingerprint = _fingerprint(chosen, exposures, prepared)
    chosen.shared.bring(run.heads_folder)
    if _fitted(run.heads_folder) == fingerprint:
        return "fitted already"
    days = sorted(exposures.glob("*.parquet"))
    torch.set_num_threads(max(1, int(chosen.train.cpus_per_worker)))
    heads = fit_heads(
        days, items, chosen.outcomes.heads, seed=chosen.seed,
        window_h=chosen.data.attribution_window_h,
    )  # fmt: skip
    with chosen.shared.whole(run.heads_folder) as out:
        heads.save(out, out / HEADS_USERS)
        write_json(out / FIT_FILE, {"format": FORMAT, "fingerprint": fingerprint})
    return figures(heads.card)


def figures(card: Mapping[str, Any]) -> str:
    """How good heads are, in one line: AUC and calibration error on the later window."""
    told = []
    for name, head in card["heads"].items():
        ours = head["figures"]["heads"]
        if ours["auc"]["value"] is None:
            told.append(f"{name}: not judged, all later exposures came to the same")
            continue
        others = ((who, each["auc"]["value"]) for who, each in head["figures"].items())
        best, auc = max(((w, a) for w, a in others if w != "heads"), key=lambda pair: pair[1])
        told.append(
            f"{name}: AUC {ours['auc']['value']:.4f} ({best} {auc:.4f}), ECE {ours['ece']:.4f}"
        )
    return "; ".join(told)


def _too_little(run: Run) -> str | None:
    """Why no heads can be fitted; None if they can."""
    folder = _exposures(run)
    if not (folder / SUMMARY_FILE).is_file():
        return f"there is no {folder} (`recsys exposures`)"
    days = read_summary(folder)["days"].values()
    clicks, least = sum(day["clicked"] for day in days), run.recipe.outcomes.heads.min_clicks
    window_h = run.recipe.data.attribution_window_h
    if len(days) < (needed := num_days_needed(window_h)):
        return (
            f"{folder} holds {len(days)} days, of {needed}: outcomes come for "
            f"data.attribution_window_h={window_h:g}, and a later day judges the heads"
        )
    if clicks >= least:
        return None
    return f"{clicks:,} clicks in {folder}, and outcomes.heads.min_clicks asks for {least:,}"


def _exposures(run: Run) -> Path:
    folder = run.root / EXPOSURES_DIR
    run.recipe.shared.bring(folder)
    return folder


def _fingerprint(recipe: Recipe, exposures: Path, prepared: Prepared) -> str:
    """Hash of all that the heads follow from."""
    settings = recipe.outcomes.heads.model_dump(mode="json")
    catalogue = prepared.summary["catalogue_fingerprint"]
    return json_sha256([FORMAT, settings, recipe.seed, catalogue, file_hashes(exposures)])


def _fitted(folder: Path) -> str | None:
    """Fingerprint of the heads in a folder; None: there are none."""
    path = folder / FIT_FILE
    if not path.is_file():
        return None
    return str(read_json(path, "run `recsys train` again", {"fingerprint": str})["fingerprint"])
