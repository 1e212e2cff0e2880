"""`python -m benchmarks.eye_crops`: command line of `benchmarks.assets.eye_crops`."""

import sys

from benchmarks.assets.eye_crops import main

if __name__ == "__main__":
    sys.exit(main())
