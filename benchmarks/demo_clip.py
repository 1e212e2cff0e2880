"""`python -m benchmarks.demo_clip`: command line of `benchmarks.assets.demo_clip`."""

from benchmarks.assets.demo_clip import main

if __name__ == "__main__":
    main()
