"""`python -m benchmarks.state`, see `stores`."""

import sys

from benchmarks.state.stores import main

sys.exit(main())
