"""The rehearsal as a command; see `benchmarks.rehearsal.command`."""

import sys

from benchmarks.rehearsal.command import main

if __name__ == "__main__":
    sys.exit(main())
