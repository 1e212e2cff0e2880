"""Bundled engines, each with a model card and the checkpoint that it was exported from."""
