"""`python -m benchmarks.machine`: command line of `benchmarks.harness.system_info`."""

from benchmarks.harness.system_info import main

if __name__ == "__main__":
    main()
