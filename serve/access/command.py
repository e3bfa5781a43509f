"""API keys: make, list and remove them; a running service knows within a second.

recsys keys add shop-frontend --right recommend --right events --config recipes/demo.yaml
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from recsys.config import load_recipe
from recsys.errors import DataError, RaycommendError, RecipeError
from serve.access.key_file import KeyFile
from serve.schemas.callers import RIGHTS


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parser().parse_args(argv)
    try:
        named = load_recipe(options.config, options.overrides).serve.access.keys
        if named is None:
            raise RecipeError(
                "the recipe names no file for API keys", where=options.config,
                field="serve.access.keys", fix="name one, e.g. runs/demo/keys.json",
            )  # fmt: skip
        _run(options, Path(named).expanduser().absolute())
    except RaycommendError as error:
        print(f"keys: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(
        prog="recsys keys", description="API keys of the service; they are stored as hashes."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", required=True, metavar="FILE", help="the recipe")
    common.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", dest="overrides",
        help="override one key of the recipe; may be given again",
    )  # fmt: skip
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = commands.add_parser("add", parents=[common], help="make a key and show it, once")
    add.add_argument("name", metavar="NAME", help="of its owner")
    add.add_argument(
        "--right", action="append", choices=RIGHTS, required=True, dest="rights",
        help="what it opens; may be given again",
    )  # fmt: skip
    commands.add_parser("list", parents=[common], help="names and rights")
    remove = commands.add_parser("remove", parents=[common], help="let a key open nothing any more")
    remove.add_argument("name", metavar="NAME")
    return whole


def _run(options: argparse.Namespace, path: Path) -> None:
    if options.command == "add":
        keys, text = _read_or_empty(path).with_key(options.name, tuple(options.rights))
        keys.write(path)
        print(text)
        print("shown this once; it is kept nowhere", file=sys.stderr)
    elif options.command == "remove":
        KeyFile.read(path).without(options.name).write(path)
    else:
        for key in KeyFile.read(path).keys:
            print(f"{key.name:<30}{', '.join(key.rights)}")


def _read_or_empty(path: Path) -> KeyFile:
    try:
        return KeyFile.read(path)
    except DataError:
        if path.exists():
            raise
        return KeyFile()


if __name__ == "__main__":
    sys.exit(main())
