"""Networks, one file each; `create_generator` makes one by its name. `train/models/base.py` says how to add one."""

from __future__ import annotations

from typing import Any

from train.models.base import Generator, nchw_from_frames, restore_frames, restore_nchw, run_padded
from train.models.edge import Edge
from train.models.patch_gan import PatchGan
from train.models.two_stage_cnn import TwoStageCnn

GENERATORS = ("edge", "resnet_unet", "swin_deblur", "two_stage_cnn")
"""Names for `--generator`, each with a class in `_find_class`."""


def create_generator(name: str, **options: Any) -> Generator:
    """Return a generator with random weights, except for a `pretrained` encoder.

    `options`: keyword arguments of its class. Raises ValueError if the name is unknown or the options cannot be used,
    and PretrainedError if pretrained weights cannot be loaded.
    """
    try:
        return _find_class(name)(**options)
    except TypeError as error:
        raise ValueError(f"options of {name}: {str(error).rpartition('() ')[2]}") from error


def _find_class(name: str) -> type[Generator]:
    # These two need transformers, which takes seconds to import.
    if name == "swin_deblur":
        from train.models.swin_deblur import SwinDeblur  # noqa: PLC0415

        return SwinDeblur
    if name == "resnet_unet":
        from train.models.resnet_unet import ResnetUnet  # noqa: PLC0415

        return ResnetUnet
    classes: dict[str, type[Generator]] = {"edge": Edge, "two_stage_cnn": TwoStageCnn}
    if name not in classes:
        raise ValueError(f"no generator has the name {name!r}; known: {', '.join(GENERATORS)}")
    return classes[name]


__all__ = [
    "GENERATORS",
    "Generator",
    "PatchGan",
    "create_generator",
    "nchw_from_frames",
    "restore_frames",
    "restore_nchw",
    "run_padded",
]
