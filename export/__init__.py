"""From a trained checkpoint to an engine that is proven."""
