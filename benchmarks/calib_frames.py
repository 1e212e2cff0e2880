"""`python -m benchmarks.calib_frames`: command line of `benchmarks.assets.calibration_frames`."""

from benchmarks.assets.calibration_frames import main

if __name__ == "__main__":
    main()
