"""`python -m runtime.batch`: restore many files with one engine, on this machine or on a Ray cluster."""
