"""Serve the champion of the registry.

python -m serve --config recipes/demo.yaml
python -m serve --config recipes/demo.yaml --bundle runs/demo/bundle --set serve.port=8001
python -m serve --config recipes/demo.yaml --set ray.address=auto    # a new champion, hot
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from recsys.artifacts.bundle import Bundle
from recsys.artifacts.lineage import champion_place, check_bundle
from recsys.config import Recipe, load_recipe
from recsys.errors import DataError, RaycommendError, RecipeError
from recsys.state import STATE_FILE, URL_VARIABLE
from recsys.storage.location import Place, place_of
from serve.launch.checks import check, warnings
from serve.models.arms import DEFAULT_ARM, ResolvedArm, resolve_arms
from serve.models.objectives import check_objectives
from serve.ray.environment import set_defaults
from serve.settings import Settings


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="recsys serve",
        description="Serve the champion on Ray Serve until Ctrl-C; with `ray.address` naming a "
        "cluster where the service runs, hand it the champion.",
    )
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="the recipe, e.g. recipes/demo.yaml"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", dest="overrides",
        help="override one key of the recipe; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--bundle", metavar="PLACE", help="serve the bundle of this folder or URI, not the champion"
    )
    parser.add_argument(
        "--update", action="store_true",
        help="hand it to the service on the cluster of `ray.address`, else to the run's own "
        "on this machine; start none",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="check recipe and bundle, say what would be served"
    )
    options = parser.parse_args(argv)
    try:
        recipe = load_recipe(options.config, options.overrides)
        bundle = served_bundle(recipe, options.bundle and _place(options.bundle))
        if options.dry_run:
            address = recipe.ray.address or os.environ.get("RAY_ADDRESS") or "local"
            set_defaults()  # HAProxy's ports are those of a start
            check(recipe, address)
            for line in plan(recipe, bundle):
                print(f"would {line}")
            for warning in warnings(recipe):
                print(f"warning: {warning}")
            return 0
        if options.update and recipe.ray.address is None:
            recipe = _at_own_service(recipe)
        from serve.launch.run import start

        start(recipe, bundle, command=command_of(options), update=options.update)
    except RaycommendError as error:
        print(f"serve: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("serve: interrupted before the service was up", file=sys.stderr)
        return 130
    return 0


def command_of(options: argparse.Namespace) -> list[str]:
    """The command line that these options came from, to be run from anywhere else as well."""
    words = [shutil.which("recsys") or str(Path(sys.executable).with_name("recsys")), "serve"]
    words += ["--config", str(Path(options.config).absolute())]
    for override in options.overrides:
        if not override.startswith("ray.address="):  # the command for an update names its own
            words += ["--set", override]
    return words if options.bundle is None else [*words, "--bundle", str(place_of(options.bundle))]


def _at_own_service(recipe: Recipe) -> Recipe:
    """The recipe with the address of the run's service on this machine.

    Raises:
        DataError: none runs.
    """
    path = recipe.service_address_file
    if not path.is_file():
        raise DataError(
            "no service of this run runs on this machine", where=path, field="ray.address",
            fix="set ray.address to what the service printed, or start one",
        )  # fmt: skip
    ray = recipe.ray.model_copy(update={"address": path.read_text()})
    return recipe.model_copy(update={"ray": ray})


def _place(text: str) -> Place:
    try:
        return place_of(text)
    except ValueError as error:
        raise RecipeError(str(error), where="--bundle", value=text, fix="name another") from None


def served_bundle(recipe: Recipe, given: Place | None) -> Place:
    """Where the bundle lies that is served: the one given, else the recipe's champion.

    What the replicas would refuse, of it or of an arm's, is refused here: their reasons stand in
    their logs, and a minute later.

    Raises:
        BundleError: there is none, it is another product's, or it has no outcome heads and lists
            are to be ordered by them.
        DataError: its log was prepared with another pseudonym key.
        StorageError: it cannot be fetched.
    """
    for arm in recipe.serve.arms:
        if arm.bundle is not None:
            check_bundle(recipe, place_of(arm.bundle))
    if given is not None:
        check_bundle(recipe, given)
    place = champion_place(recipe) if given is None else given
    for each in recipe.serve.arms or (DEFAULT_ARM,):
        of_arm = place if each.bundle is None else place_of(each.bundle)
        local = recipe.storage.cache.local(of_arm)
        check_objectives(recipe.serve, each, of_arm, Bundle.open(local.folder, verify=False))
    return place


def plan(recipe: Recipe, bundle: Place) -> list[str]:
    """What a start would do."""
    settings, scale, encoders = recipe.serve, recipe.serve.autoscaling, recipe.serve.text_encoder
    address = recipe.ray.address or os.environ.get("RAY_ADDRESS")
    local = recipe.storage.cache.local(bundle).folder
    return [
        f"verify and serve {Bundle.open(local).version} from {bundle}",
        *(_arm(arm) for arm in resolve_arms(recipe, verify=True)),
        f"start Ray Serve on {address or 'a local Ray'}, at {settings.host}:{settings.port}"
        + (f", gRPC at port {settings.grpc_port}" if settings.grpc_port else ""),
        f"run {scale.min_replicas} to {scale.max_replicas} replicas of Ranking and "
        f"{encoders.min_replicas} to {encoders.max_replicas} of TextEncoder, "
        f"{settings.cpus_per_replica:g} CPU each",
        f"keep users in {_store(recipe)}",
    ]


def _arm(arm: ResolvedArm) -> str:
    """One arm, in words."""
    what = "shadow, never answers" if arm.shadow else f"weight {arm.weight:g}"
    drawn = f", lists drawn by {arm.exploration}" if arm.explores else ""
    return f"have arm {arm.name}: {arm.version or 'the same bundle'}, {what}{drawn}"


def _store(recipe: Recipe) -> str:
    """Where users are kept, in words; a URL of the environment may hold a password."""
    state = Settings.of(recipe).serve.state
    if state.backend == "memory":
        return "memory"
    if state.backend == "redis":
        return f"Redis, {state.url or '$' + URL_VARIABLE}, keys {state.prefix}:*"
    return str(state.path or recipe.root / STATE_FILE)


if __name__ == "__main__":
    sys.exit(main())
