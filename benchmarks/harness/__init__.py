"""Parts that all benchmarks share: scenarios, statistics, the clock, system facts, result files."""
