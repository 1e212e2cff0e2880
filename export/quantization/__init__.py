"""Precision of the core network: FP16 and INT8 graphs, calibration, and the search for layers that stay in float."""
