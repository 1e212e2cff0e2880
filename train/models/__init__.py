"""Networks: one file each, `create_generator` to make one by name."""

from __future__ import annotations

from typing import Any

from train.models.base import Generator, padded, planes, restore, restored_planes
from train.models.edge import Edge
from train.models.patch_gan import PatchGan
from train.models.two_stage_cnn import TwoStageCnn

GENERATORS = ("edge", "resnet_unet", "swin_deblur", "two_stage_cnn")


def create_generator(name: str, **options: Any) -> Generator:
    """Build a generator; untrained but for a `pretrained` encoder.

    Raises ValueError for an unknown `name` (with the known ones) or unusable `options`.
    """
    try:
        return _kind(name)(**options)
    except TypeError as error:
        raise ValueError(f"options of {name}: {str(error).rpartition('() ')[2]}") from error


def _kind(name: str) -> type[Generator]:
    # Two of them need transformers, which takes seconds to import.
    if name == "swin_deblur":
        from train.models.swin_deblur import SwinDeblur  # noqa: PLC0415

        return SwinDeblur
    if name == "resnet_unet":
        from train.models.resnet_unet import ResnetUnet  # noqa: PLC0415

        return ResnetUnet
    if name in (kinds := {"edge": Edge, "two_stage_cnn": TwoStageCnn}):
        return kinds[name]
    raise ValueError(f"no generator named {name!r}; known: {', '.join(GENERATORS)}")


__all__ = [
    "GENERATORS",
    "Generator",
    "PatchGan",
    "create_generator",
    "padded",
    "planes",
    "restore",
    "restored_planes",
]
