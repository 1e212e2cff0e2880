"""The device side: sources, engines, sinks and the pipeline between them (never torch)."""
