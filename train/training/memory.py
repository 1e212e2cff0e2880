"""Training with less memory: results that the backward pass needs are computed again instead of kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from runtime.errors import UsageError
from train.models import Generator


@contextmanager
def hold_statistics(network: nn.Module) -> Iterator[None]:
    """Leave the moving averages of batch and instance normalisations unchanged inside the context.

    For forward passes in train mode of images that are counted once already. They still normalise by the batch.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, _NormBase) and layer.track_running_stats]
    momenta = [layer.momentum for layer in layers]
    counts = [None if layer.num_batches_tracked is None else layer.num_batches_tracked.clone() for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum, count in zip(layers, momenta, counts, strict=True):
            layer.momentum = momentum
            if layer.num_batches_tracked is not None and count is not None:
                layer.num_batches_tracked.copy_(count)


def checkpoint_activations(generator: Generator) -> None:
    """Keep only the inputs of the parts in `checkpointed_parts` for the backward pass, which computes the rest again.

    Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". Gradients stay the same. Raises UsageError if the
    network names no parts.
    """
    for holder, name in _find_parts(generator):
        setattr(holder, name, _Checkpointed(getattr(holder, name), generator))


def _find_parts(generator: Generator) -> list[tuple[nn.Module, str]]:
    """Return the objects and the names of their methods that are checkpointed."""
    patterns = generator.checkpointed_parts
    parts: list[tuple[nn.Module, str]] = [(generator, name) for name in patterns if hasattr(type(generator), name)]
    for name, module in generator.named_modules():
        if any(re.fullmatch(pattern, name) for pattern in patterns):
            parts.append((module, "forward"))
    if not parts:
        what = f"{type(generator).__name__} names no parts whose activations can be computed again"
        raise UsageError(what, hint="leave out --set checkpoint_activations=True")
    return parts


class _Checkpointed:
    """A method whose activations are not kept: it runs a second time in the backward pass."""

    def __init__(self, method: Callable[..., Any], network: nn.Module) -> None:
        self._method, self._network = method, network

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return checkpoint(self._method, *arguments, use_reentrant=False, context_fn=self._create_contexts, **options)

    def _create_contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), hold_statistics(self._network)
