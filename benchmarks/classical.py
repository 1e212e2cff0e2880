"""`python -m benchmarks.classical`: command line of `benchmarks.quality.classical`."""

import sys

from benchmarks.quality.classical import main

if __name__ == "__main__":
    sys.exit(main())
