"""What bundles cost in memory, when several processes open them and when two stand side by side.

    python -m benchmarks.serving.arms FOLDER --items 200000

Writes two random bundles into FOLDER (once) and opens them in processes of their own, each of which
answers some questions, so that what it maps is read. Printed is the proportional set size (PSS):
a page that n processes share counts as 1/n in each, so the column `all` is what they take together.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks.command import run_command

NUM_QUESTIONS = 20
MIB = 1 << 20


def serve(folders: Sequence[Path], told: Connection) -> None:
    """Open bundles, answer, and tell (PSS, of it file-backed) in bytes each time one is asked."""
    import psutil
    import torch

    from recsys.data.histories import Histories
    from recsys.recommender import Recommender
    from recsys.schema import EVENT_CODE

    torch.set_num_threads(1)
    models = [Recommender.load(folder) for folder in folders]
    rng, none = np.random.default_rng(0), np.zeros(0, dtype=np.int32)
    for model in models:
        for _ in range(NUM_QUESTIONS):
            rows = rng.integers(model.num_items, size=30).tolist()
            times = list(range(1, 31))
            history = Histories.of(rows, [EVENT_CODE["view"]] * 30, times, 100)
            assert len(model.recommend(history, 10, exclude=none, allowed=None)[0]) == 10
    told.send(None)
    while told.recv():
        told.send((psutil.Process().memory_full_info().pss, _pss_of_files()))


def _pss_of_files() -> int:
    """Bytes of the PSS that are pages of files, the bundles' among them."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "Pss_File":
            return int(rest.split()[0]) * 1024
    return 0


def measured(folders: Sequence[Path], num_processes: int) -> list[tuple[int, int]]:
    """What each of some processes that have the same bundles open says of itself, all at once."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(num_processes):
        mine, theirs = context.Pipe()
        process = context.Process(target=serve, args=(list(folders), theirs))
        process.start()
        theirs.close()
        pipes.append(mine)
        processes.append(process)
    try:
        for pipe in pipes:
            pipe.recv()
        for pipe in pipes:
            pipe.send(True)
        return [pipe.recv() for pipe in pipes]
    finally:
        for pipe in pipes:
            pipe.send(False)
        for process in processes:
            process.join()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.arms",
        description="Memory of several bundles and processes.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--items", type=int, default=200_000, help="items (default: 200000)")
    return run_command(_run, parser.parse_args(argv))


def _run(options: argparse.Namespace) -> None:
    from benchmarks.serving.random_bundle import make_bundle, make_recipe
    from recsys.artifacts.bundle import BUNDLE

    folders = [options.folder / name for name in ("one", "two")]
    for seed, folder in enumerate(folders):
        if not (folder / BUNDLE).is_file():
            make_bundle(folder, make_recipe(options.folder), options.items, seed=seed)
    size = sum(path.stat().st_size for path in folders[0].rglob("*") if path.is_file())
    print(f"{options.items:,} items, {size / MIB:.0f} MiB a bundle; PSS in MiB\n")
    print("| bundles | processes | each | of it pages of files | all |\n|---|---|---|---|---|")
    for opened in (folders[:1], folders):
        for num_processes in (1, 2, 4):
            found = np.array(measured(opened, num_processes)) / MIB
            each, files = found.mean(axis=0)
            total = found[:, 0].sum()
            print(
                f"| {len(opened)} | {num_processes} | {each:.0f} | {files:.0f} | {total:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
