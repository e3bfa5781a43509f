"""The shop's texts -> a language model that knows them: masked words, data-parallel on Ray Train.

    python -m ray_jobs.pretrain --config my.yaml --set pretrain.epochs=5

Killed workers are replaced and go on from the last epoch; a run started again under the same recipe
does the same. The jobs that follow take the result in place of `model.language_model`.
"""

from __future__ import annotations

import json
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

from ray_jobs.common.cluster import connected
from ray_jobs.common.giving_up import giving_up
from ray_jobs.common.kept import Checkpoints
from ray_jobs.common.same_code import check_same_code
from ray_jobs.common.standstill import noticed
from ray_jobs.common.training_group import fit, group_of_workers, summing, trials_at_once
from recsys.artifacts.run import Run
from recsys.config import Pretrain, recipe_from_dict
from recsys.errors import RecipeError
from recsys.preparation.prepared import Prepared
from recsys.storage.outputs import write_json
from recsys.text.pretrained import fingerprint, locate
from recsys.training.pretraining.adapted import made_of


def plan(run: Run) -> list[str]:
    """What a run would do."""
    _asked(run)
    run.check_trainable()
    return steps(run)


def steps(run: Run) -> list[str]:
    """What a run does, whatever is prepared now."""
    recipe, settings = run.recipe, run.recipe.pretrain
    return [
        f"read {run.prepared_folder}",
        f"adapt the last {settings.last_n} layers of {recipe.model.language_model} on "
        f"{recipe.train.most_workers} workers: {settings.epochs} epochs at "
        f"{settings.learning_rate:g}, {settings.behaviour_share:.0%} of the steps on behaviour",
        f"write {run.language_folder} and {run.pretrain_file}",
    ]


def execute(run: Run) -> Path:
    """Adapt the recipe's language model.

    Returns:
        The folder of the adapted one.

    Raises:
        RecipeError: the recipe asks for no adaptation.
    """
    epochs = _asked(run).epochs
    run.check_trainable()
    recipe = run.recipe
    origin = made_of(recipe, run.prepared).values()
    name = "-".join(["pretrain", *(value[:8] for value in origin)])
    checkpoints = Checkpoints(run.trainings / name, recipe.shared)
    with connected(recipe.ray, dashboard=True):
        trials_at_once(recipe)
        config = {
            "recipe": recipe.resolved(), "prepared": str(run.prepared.folder),
            "run": str(checkpoints.run),
        }  # fmt: skip

        def build(remarks: Path) -> Any:
            callback = giving_up(recipe.train.max_failures, remarks)
            return group_of_workers(recipe, adapt_loop, config, name, run.trainings, callback)

        fit(build, checkpoints, lambda point: epoch_line(point, epochs))
    write_adapted(run, checkpoints.latest())
    return run.language_folder


def _asked(run: Run) -> Pretrain:
    if not run.recipe.pretrain.epochs:
        raise RecipeError(
            "the recipe asks for no adaptation", field="pretrain.epochs", value=0,
            fix="set it to 1 or more, or go on with `recsys tune`",
        )  # fmt: skip
    return run.recipe.pretrain


def write_adapted(run: Run, checkpoint: Path) -> None:
    """Make a checkpoint a language model of its own, and say beside it what is known of it."""
    from recsys.artifacts.checkpoint import load_model
    from recsys.training.pretraining.corpus import Corpus
    from recsys.training.pretraining.masked_language import build_masked

    recipe, prepared = run.recipe, run.prepared
    model = build_masked(recipe, Corpus.read(recipe, prepared))
    progress = load_model(checkpoint, model, None)
    with recipe.shared.whole(run.language_folder) as out:
        model.language.save(out, locate(recipe.model.language_model))
    fingerprint.cache_clear()  # the folder may have held another one
    write_json(
        run.pretrain_file,
        {
            **made_of(recipe, prepared),
            "adapted": fingerprint(locate(str(run.language_folder))),
            "perplexity_before": progress.curve[0]["perplexity"],
            "perplexity_after": progress.curve[-1]["perplexity"],
            "curve": progress.curve,
        },
    )
    recipe.shared.hand_in(run.pretrain_file)


def adapt_loop(config: dict[str, Any]) -> None:
    """One worker: the loop around `recsys.training.pretraining.masked_language.Adapter`."""
    import ray.train
    import ray.train.torch
    import torch

    from recsys.artifacts import checkpoint as files
    from recsys.artifacts.progress import Progress
    from recsys.training.pretraining.corpus import Corpus
    from recsys.training.pretraining.masked_language import Adapter, build_masked

    recipe = recipe_from_dict(config["recipe"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    check_same_code(world)
    if not recipe.train.use_gpu:
        torch.set_num_threads(max(1, int(recipe.train.cpus_per_worker)))
    recipe.shared.bring(Path(config["prepared"]))
    corpus = Corpus.read(recipe, Prepared(Path(config["prepared"])), rank, world)
    device = ray.train.torch.get_device()
    model = build_masked(recipe, corpus).to(device)
    adapter = Adapter(recipe, corpus, model, device)
    # The head's epoch is number 0; `epoch` counts the finished ones, and it with them.
    progress = Progress()
    checkpoints = Checkpoints(Path(config["run"]), recipe.shared)
    last = checkpoints.last()
    if last is not None:
        progress = files.load_model(last, model, None)
        files.load_optimizer(last, adapter.optimizer)
    total = summing(world, device)
    while progress.epoch <= recipe.pretrain.epochs:
        epoch, started = progress.epoch, time.monotonic()
        adapter.prepare(epoch)
        wrapped: torch.nn.Module = model
        if world > 1:  # no buffer changes: the words' embeddings need not be sent in each step
            wrapped = ray.train.torch.prepare_model(
                model,
                move_to_device=False,
                parallel_strategy_kwargs={"broadcast_buffers": False},
            )
        with noticed(model, recipe.train, world):
            loss = total(adapter.train_epoch(epoch, wrapped))[0] / world
            trained = time.monotonic()
            held_out, num_tokens = total(*adapter.held_out_loss())
        point = {
            "epoch": epoch,
            "loss": loss,
            "perplexity": math.exp(held_out / num_tokens),
            "num_tokens": num_tokens,
            "train_s": trained - started,
            "valid_s": time.monotonic() - trained,
        }
        progress.epoch += 1
        progress.curve.append(point)
        if rank == 0:
            checkpoints.keep(
                progress,
                partial(
                    files.save,
                    model=model,
                    head=None,
                    optimizer=adapter.optimizer,
                    progress=progress,
                ),
            )


def epoch_line(point: dict[str, Any], num_epochs: int) -> str:
    """One epoch's loss, held-out perplexity and seconds."""
    name = f"epoch {point['epoch']}/{num_epochs}" if point["epoch"] else "fitting the word head"
    return (
        f"{name}: loss {point['loss']:.4f}, held-out perplexity {point['perplexity']:.1f} on "
        f"{point['num_tokens']:,.0f} words ({point['train_s']:.0f} s)"
    )


def report(run: Run) -> list[str]:
    """Held-out perplexity before and after."""
    data = json.loads(run.pretrain_file.read_text())
    return [
        f"held-out perplexity {data['perplexity_before']:.1f} -> {data['perplexity_after']:.1f} "
        f"in {run.recipe.pretrain.epochs} epochs"
    ]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("pretrain")
