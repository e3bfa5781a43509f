"""`python -m benchmarks.serving`, see `peers`."""

import sys

from benchmarks.serving.peers import main

sys.exit(main())
