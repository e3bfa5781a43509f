"""`recsys <job>`: one command line for all jobs; `python -m ray_jobs.<job>` is the same code."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import os
import shlex
import sys
import tempfile
import time
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path

from ray_jobs import plan as sizing
from ray_jobs.common.cluster import start_cost
from recsys.config import Recipe, load_recipe
from recsys.errors import RaycommendError, cause_of
from recsys.schema import TOLD_BY
from recsys.storage.location import Place, place_of

#: Job -> what it does, and the job that usually follows.
JOBS = {
    "prepare": ("raw log -> checked, pseudonymous histories and catalogue", "tune"),
    "pretrain": ("adapt the language model to the shop's texts (Ray Train)", "tune"),
    "train": ("fine-tune one recipe (Ray Train)", "embed"),
    "tune": ("search the recipe's space (Ray Tune), keep the winner", "embed"),
    "embed": ("encode the catalogue and write the bundle", "evaluate"),
    "evaluate": ("rank the whole catalogue for the test window, beside baselines", "promote"),
    "promote": ("let the bundle become champion if the gate lets it", "serve"),
    "report": ("the page of a run anew, from what its jobs have found", "promote"),
    "exposures": ("what was shown, joined to what came of it", "outcomes"),
    "outcomes": ("click, cart and purchase rates with intervals; arms side by side", "train"),
    "policy-value": ("what a bundle would have earned on the logged lists", "promote"),
    "drift": ("what came since the champion beside what it was made from (PSI)", "train"),
    "compact": ("live events of the service -> files for the next prepare; erase", "prepare"),
    "rollback": ("make the previous champion the champion again", "serve"),
    "nightly": (
        "compact -> prepare -> ... -> promote -> hand over; goes on where it was",
        "outcomes",
    ),
    "pipeline": ("prepare (-> pretrain) -> tune -> embed -> evaluate -> promote", "serve"),
}
#: Job -> the options that it alone takes.
OWN_OPTIONS = {
    "train": ("start_from",), "promote": ("version", "force"), "outcomes": ("of",),
    "nightly": ("day", "again"), "drift": ("window_days",),
    "policy-value": ("bundle", "arm", "exploration", "epsilon", "temperature"),
}  # fmt: skip
#: Those that need no Ray, or not always.
WITHOUT_RAY = {"promote", "compact", "rollback", "outcomes", "report"}


def main(argv: list[str] | None = None) -> None:
    """Entry point of `recsys`."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] in (["serve"], ["keys"], ["demo"]):
        _hand_over(arguments[0], arguments[1:])
    parser = argparse.ArgumentParser(
        prog="recsys", description="Parquet logs in, an autoscaling ranking service out.",
        formatter_class=_Aligned,
    )  # fmt: skip
    version = f"raycommend {metadata.version('raycommend')}"
    parser.add_argument("--version", action="version", version=version)
    subparsers = parser.add_subparsers(dest="job", required=True, metavar="JOB")
    for name, (text, _) in JOBS.items():
        _add_options(subparsers.add_parser(name, help=text, description=text), name)
    subparsers.add_parser(
        "serve", help="serve the champion on Ray Serve (see `recsys serve --help`)"
    )
    subparsers.add_parser("keys", help="API keys of the service (see `recsys keys --help`)")
    subparsers.add_parser("demo", help="the whole way on a real log, then ask the service")
    runs = subparsers.add_parser("runs", help="list a folder's runs: recipe, data, winner, metric")
    runs.add_argument("folder", nargs="?", default="runs", type=_place, metavar="FOLDER",
                      help="a path or a URI (runs)")  # fmt: skip
    compare = subparsers.add_parser("compare", help="two runs side by side, and what was changed")
    for name in ("first", "second"):
        compare.add_argument(name, type=_place, metavar="RUN", help="a run: a path or a URI")
    text = "what the jobs of a log would take: memory, disk, hours; arithmetic alone"
    sizing.add_options(subparsers.add_parser("plan", help=text, description=text))
    options = parser.parse_args(arguments)
    if options.job == "plan":
        sys.exit(sizing.show(options))
    sys.exit(_look(options) if options.job in ("runs", "compare") else _run(options.job, options))


class _Aligned(argparse.HelpFormatter):
    """Has the longest job's text on its line: argparse forgets that jobs are indented twice."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = 4 + max(map(len, JOBS))


def job_main(job: str) -> None:
    """Entry point of `python -m ray_jobs.<job>`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m ray_jobs.{job.replace('-', '_')}", description=JOBS[job][0]
    )
    _add_options(parser, job)
    sys.exit(_run(job, parser.parse_args()))


def _add_options(parser: argparse.ArgumentParser, job: str) -> None:
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="the recipe, e.g. recipes/demo.yaml"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", dest="overrides",
        help="override one key of the recipe; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check recipe and input, say what would be done, do nothing",
    )
    if job == "train":
        parser.add_argument(
            "--from", metavar="START", dest="start_from",
            help="begin from a bundle's weights: champion, a version of the registry, or a "
            "bundle's folder or URI",
        )  # fmt: skip
    if job == "promote":
        parser.add_argument(
            "--version", metavar="V", help="a version of the registry; default: the run's bundle"
        )
        parser.add_argument(
            "--force", action="store_true",
            help="promote it whatever the gate says; the registry remembers",
        )  # fmt: skip
    if job == "nightly":
        parser.add_argument(
            "--day", type=_day, metavar="DATE", help="the night of this day (UTC); default: today"
        )
        parser.add_argument(
            "--again",
            action="store_true",
            help="begin the day's night anew, however far it has come",
        )
    if job == "policy-value":
        _add_policy(parser)
    if job == "outcomes":
        parser.add_argument(
            "--of", nargs="+", choices=TOLD_BY, default=list(TOLD_BY), metavar="WHAT",
            help=f"tell the rates by these alone: {', '.join(TOLD_BY)}",
        )  # fmt: skip
    if job == "drift":
        parser.add_argument(
            "--window-days", type=_positive, metavar="N",
            help="look at the last N days at most; default: drift.days of the recipe",
        )  # fmt: skip


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _add_policy(parser: argparse.ArgumentParser) -> None:
    """What is judged: a bundle, and how it makes lists of its scores."""
    parser.add_argument(
        "bundle", nargs="?", metavar="BUNDLE",
        help="a path or URI, a version of the registry, or champion; default: the run's bundle",
    )  # fmt: skip
    parser.add_argument(
        "--arm", metavar="NAME",
        help="judge this arm of serve.arms; default: its first arm that explores, with BUNDLE",
    )  # fmt: skip
    ways = ("none", "epsilon", "plackett_luce")
    parser.add_argument("--exploration", choices=ways, help="how lists are drawn; none: sorted")
    parser.add_argument("--epsilon", type=float, metavar="E", help="of --exploration epsilon")
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="of --exploration plackett_luce"
    )


def _run(job: str, options: argparse.Namespace) -> int:
    folders: list[Path] = []
    try:
        recipe = load_recipe(options.config, options.overrides)
        from recsys.artifacts.run import Run  # after the recipe: a wrong key is told at once

        folders = written_to(recipe)
        module = importlib.import_module(f"ray_jobs.{job.replace('-', '_')}")
        run = Run.open(recipe)
        own = {name: getattr(options, name) for name in OWN_OPTIONS.get(job, ())}
        if options.dry_run:
            for line in [
                *([] if job in WITHOUT_RAY else start_cost(recipe.ray)),
                *module.plan(run, **own),
            ]:
                print(f"would {line}")
            return 0
        started = time.monotonic()
        # The two that are left write elsewhere, and may run at any time.
        with nullcontext() if job in ("compact", "rollback") else recipe.shared.locked():
            output = module.execute(run, **own)
        for line in module.report(run):
            print(line)
        print(f"{job}: done in {time.monotonic() - started:.0f} s -> {output}")
        follower = JOBS[job][1]
        print(f"next: {command_line(follower, options)}")
        return 0
    except KeyboardInterrupt:
        print(f"{job}: interrupted; run the same command to go on", file=sys.stderr)
        return 130
    except BaseException as error:
        ours = cause_of(error, *folders)
        if ours is None:
            raise
        print(f"{job}: {ours}", file=sys.stderr)
        return ours.exit_code


def _look(options: argparse.Namespace) -> int:
    """`recsys runs` and `recsys compare`: they read, and write nothing."""
    from recsys.artifacts import overview

    try:
        if options.job == "compare":
            with (
                overview.at_hand(options.first) as first,
                overview.at_hand(options.second) as other,
            ):
                lines = overview.compare(first, other)
        else:
            with overview.at_hand(options.folder) as folder:
                found = overview.runs_in(folder)
            lines = overview.table_of(found) if found else [f"no run in {options.folder} yet"]
    except RaycommendError as error:
        print(f"{options.job}: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(lines))
    return 0


def _place(text: str) -> Place:
    try:
        return place_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _day(text: str) -> dt.date:
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date: write 2026-11-30") from None
    if not dt.date(1971, 1, 1) <= day <= dt.datetime.now(dt.UTC).date():
        raise argparse.ArgumentTypeError(f"{text} has not begun yet, or lies before 1971")
    return day


def command_line(job: str, options: argparse.Namespace) -> str:
    """The command of another job under the same recipe and overrides."""
    words = ["recsys", job, "--config", options.config]
    for override in options.overrides:
        words += ["--set", override]
    return shlex.join(words)


def written_to(recipe: Recipe) -> list[Path]:
    """The folders that the jobs of a recipe write to; temporary files among them."""
    places = [recipe.root, recipe.registry, Path(tempfile.gettempdir())]
    return [place for place in places if isinstance(place, Path)]


def _hand_over(command: str, arguments: list[str]) -> None:
    """Become the other program: jobs and service share no code but `recsys`."""
    module = {"serve": "serve", "keys": "serve.access.command", "demo": "ray_jobs.demo"}[command]
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


if __name__ == "__main__":
    main()
