"""Shared parts of all benchmarks: scenarios, statistics, clock, system information, and result files."""
