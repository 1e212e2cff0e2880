"""`python -m runtime.batch`: many files through one engine, by this machine or by a Ray cluster."""
