"""What the jobs of a log would take, before there is a log or a cluster; arithmetic alone.

recsys plan --events 1e9 --items 1e7 --users 1e8 --nodes 8 --cores 32 --memory-gb 128
"""

from __future__ import annotations

import argparse
import json
import sys

from recsys.config import Recipe, apply_override, load_recipe, recipe_from_dict
from recsys.errors import RaycommendError
from recsys.planning.report import Plan
from recsys.planning.workload import Machines, Workload


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    for name in ("events", "items", "users"):
        parser.add_argument(f"--{name}", required=True, metavar="N", help="1e9 is a number too")
    parser.add_argument("--texts", metavar="N", help="distinct ones; default: as many as items")
    parser.add_argument("--nodes", default="1", metavar="N", help="equal machines; default: 1")
    parser.add_argument("--cores", metavar="N", help="of a node; default: this machine's")
    parser.add_argument("--gpus", default="0", metavar="N", help="of a node; default: 0")
    parser.add_argument("--memory-gb", metavar="GB", help="of a node; default: this machine's")
    parser.add_argument("--config", metavar="FILE", help="a recipe; default: its default values")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", dest="overrides",
        help="override one key of the recipe; may be given again",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for a program: hours and GB")


def show(options: argparse.Namespace) -> int:
    """Print the plan; returns the exit status."""
    try:
        log = Workload.of(options.events, options.items, options.users, options.texts)
        machines = Machines.of(options.nodes, options.cores, options.gpus, options.memory_gb)
        if options.config is None:
            recipe = fitting(machines, options.overrides)
        else:
            recipe = load_recipe(options.config, options.overrides)
        plan = Plan.of(log, machines, recipe)
    except RaycommendError as error:
        print(f"plan: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(plan.as_json(), indent=1) if options.json else "\n".join(plan.lines()))
    return 0


def fitting(machines: Machines, overrides: list[str]) -> Recipe:
    """The default recipe, with as many workers and processes as the machines hold.

    One training takes all GPUs, or half of the cores; what is overridden stays as it is given.

    Raises:
        RecipeError: an override names no key, or has a wrong value.
    """
    cores, gpus = machines.all_cores, machines.all_gpus
    workers = gpus or max(1, cores // 2)
    recipe = {
        "name": "plan",
        "data": {
            "source": "log",
            "cuts": {"valid": "2024-10-01", "test": "2024-11-01"},
            "num_buckets": max(16, workers),
        },
        "train": {"num_workers": workers, "use_gpu": gpus > 0},
        "embed": {"num_actors": gpus or cores},
        "evaluate": {"num_actors": cores},
    }
    for override in overrides:
        apply_override(recipe, override)
    return recipe_from_dict(recipe)
