"""`python -m runtime.install BUNDLE`: engines from the build machine, checked, proved and swapped in on the board."""
