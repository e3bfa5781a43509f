"""The shop as a command; see `benchmarks.shop.command`."""

import sys

from benchmarks.shop.command import main

if __name__ == "__main__":
    sys.exit(main())
