"""Generators: one file a network, `create_generator` to make one by name."""

from __future__ import annotations

from train.models.base import Generator
from train.models.edge import Edge

GENERATORS: dict[str, type[Generator]] = {"edge": Edge}


def create_generator(name: str, **options: int) -> Generator:
    """Build an untrained generator.

    Raises ValueError, naming the known ones, if `name` is none of them.
    """
    if name not in GENERATORS:
        raise ValueError(f"no generator named {name!r}; known: {', '.join(sorted(GENERATORS))}")
    return GENERATORS[name](**options)


__all__ = ["GENERATORS", "Generator", "create_generator"]
