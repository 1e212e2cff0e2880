"""Networks, one file each; `create_generator` makes one by its name. `train/models/base.py` says how to add one."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import Any

from runtime.errors import DeblurError, is_out_of_memory
from train.models.base import Generator, nchw_from_frames, restore_frames, restore_nchw, run_padded
from train.models.patch_gan import PatchGan

GENERATORS = {
    "deblurgan_v2": "train.models.deblurgan_v2:DeblurGanV2",
    "edge": "train.models.edge:Edge",
    "mimo_unet": "train.models.mimo_unet:MimoUnet",
    "nafnet": "train.models.nafnet:Nafnet",
    "resnet_unet": "train.models.resnet_unet:ResnetUnet",
    "restormer": "train.models.restormer:Restormer",
    "rt_focuser": "train.models.rt_focuser:RtFocuser",
    "swin_deblur": "train.models.swin_deblur:SwinDeblur",
    "two_stage_cnn": "train.models.two_stage_cnn:TwoStageCnn",
}
"""Module and class of each network by its name for `--generator`; imported when used, as some need seconds for that."""


def get_generator_class(name: str) -> type[Generator]:
    """Return the class of a generator; raises ValueError if the name is unknown."""
    if name not in GENERATORS:
        raise ValueError(f"no generator has the name {name!r}; known: {', '.join(GENERATORS)}")
    module, _, class_name = GENERATORS[name].partition(":")
    network: type[Generator] = getattr(import_module(module), class_name)
    return network


def create_generator(name: str, **options: Any) -> Generator:
    """Return a generator with random weights, except for a `pretrained` encoder.

    `options`: keyword arguments of its class. Raises ValueError if the name is unknown or the options cannot be used,
    and PretrainedError if pretrained weights cannot be loaded.
    """
    network = get_generator_class(name)
    for option, parameter in signature(network).parameters.items():
        if parameter.annotation == "bool" and not isinstance(options.get(option, False), bool):
            raise ValueError(f"options of {name}: {option} must be True or False, got {options[option]!r}")
    try:
        return network(**options)
    except DeblurError:
        raise
    except TypeError as error:
        raise ValueError(f"options of {name}: {str(error).rpartition('() ')[2]}") from error
    except Exception as error:
        if isinstance(error, ValueError) or is_out_of_memory(error):
            raise
        # torch and transformers refuse values with exceptions of many classes.
        raise ValueError(f"options of {name}: {' '.join(str(error).split())}") from error


__all__ = [
    "GENERATORS",
    "Generator",
    "PatchGan",
    "create_generator",
    "get_generator_class",
    "nchw_from_frames",
    "restore_frames",
    "restore_nchw",
    "run_padded",
]
