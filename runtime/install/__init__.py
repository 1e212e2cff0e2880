"""`python -m runtime.install BUNDLE`: check a bundle on a board, prove its engines there, and activate it."""
