"""Latency, throughput, memory and energy of engines."""
