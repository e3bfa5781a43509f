"""Compact as often as asked, each time in a child that dies by SIGKILL at the step asked for.

    python dying_compact.py RECIPE

A step is a call or a return that our own code makes or takes part in. Each line of standard input
is the step to die at; the answer is a line with the child's exit status.
"""

import os
import signal
import sys
from types import FrameType
from typing import Any

from ray_jobs import compact
from recsys.artifacts.run import Run
from recsys.config import Recipe, load_recipe
from recsys.data.feedback import events_table
from recsys.state import StateEvent


def run(recipe: Recipe, step: int) -> None:
    left = step

    def count(frame: FrameType, what: str, _: Any) -> None:
        nonlocal left
        if any(f"/{ours}" in frame.f_code.co_filename for ours in ("recsys/", "ray_jobs/compact")):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    compact.execute(Run.open(recipe))
    sys.setprofile(None)


if __name__ == "__main__":
    recipe = load_recipe(sys.argv[1])
    events_table([StateEvent("u", "e", "i", 0, 0)])  # imports more; once, not in every child
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(recipe, int(line))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
