"""`python -m benchmarks.quality`, see `measure`."""

import sys

from benchmarks.quality.measure import main

sys.exit(main())
