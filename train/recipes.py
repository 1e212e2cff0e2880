"""Recipes of training runs by name: two published papers, and the bundled `edge` engines."""

from __future__ import annotations

import dataclasses

from train.config import DataConfig, LossConfig, Recipe
from train.data.blur import BlurConfig
from train.gan_config import GanConfig

_PAPER_DATA = DataConfig(view="resize", size_px=(224, 224), validation="test")

_EDGE = Recipe(
    generator="edge",
    losses=LossConfig(charbonnier=1.0, fft_l1=0.1),
    data=DataConfig(
        scale=(0.5, 1.0),
        flips=True,
        quarter_turns=True,
        validation_share=1 / 16,
        blur=BlurConfig(length_px=(0.0, 32.0), codes_share=0.5),
    ),
    batch=16,
    epochs=20,
    optimizer="adamw",
    learning_rate=6e-4,
    weight_decay=1e-4,
    warmup_steps=500,
    schedule="cosine",
    gradient_clip=0.1,
    ema_decay=0.999,
    precision="auto",
    channels_last=True,
    metrics_steps=100,
)

_EDGE_S = {"widths": (32, 64, 96), "blocks": (1, 1, 2), "half_pass": True}
_EDGE_L = {"widths": (64, 96, 96), "blocks": (2, 2, 2), "half_pass": True}
_HALF_AS_EDGE_S = {"half_widths": _EDGE_S["widths"], "half_blocks": _EDGE_S["blocks"]}

RECIPES: dict[str, Recipe] = {
    # "Two-Stage CNN Framework for Single-Image Deblurring and Restoration", section 3.3. The paper does not say which
    # images it validates with; here it is a tenth of the training sequences.
    "two_stage": Recipe(
        generator="two_stage_cnn",
        losses=LossConfig(mse=1.0, ssim=0.3, adversarial=0.01),
        data=DataConfig(view="resize", size_px=(800, 450), flips=True, rotation_deg=10.0),
        batch=4,
        epochs=100,
        learning_rate=5e-4,
        weight_decay=5e-4,
        schedule="plateau",
        tenth_every_epochs=30,
        early_stopping_epochs=10,
    ),
    # DeblurGAN-v2 paper, sections V and VI. It calls the weights of its losses empirical and states none.
    "deblurgan_v2": Recipe(
        generator="resnet_unet",
        options={"pretrained": "microsoft/resnet-50"},
        losses=LossConfig(l1=1.0, multi_scale_l1=1.0, adversarial=0.01, adversarial_kind="bce_logits"),
        data=_PAPER_DATA,
        batch=8,
        epochs=50,
        learning_rate=1e-4,
    ),
    # The same with what the abstract of the paper names and no section describes: attention and dense skip connections,
    # a hierarchical discriminator, and losses for similarity of structure and perception. All weights are ours.
    "deblurgan_v2_full": Recipe(
        generator="resnet_unet",
        options={"pretrained": "microsoft/resnet-50", "attention": True, "dense_skips": True},
        losses=LossConfig(
            l1=1.0, multi_scale_l1=1.0, ssim=0.3, lpips=0.1, adversarial=0.01, adversarial_kind="bce_logits"
        ),
        gan=GanConfig(discriminator="hierarchical"),
        data=_PAPER_DATA,
        batch=8,
        epochs=50,
        learning_rate=1e-4,
    ),
    # The same paper, section II.
    "swin_mse": Recipe(
        generator="swin_deblur",
        options={"pretrained": "microsoft/swin-base-patch4-window7-224"},
        losses=LossConfig(mse=1.0),
        data=_PAPER_DATA,
        batch=8,
        epochs=50,
        learning_rate=1e-4,
    ),
    # The recipes of the bundled engines of these names.
    "edge-s": dataclasses.replace(_EDGE, options=_EDGE_S),
    "edge-m": dataclasses.replace(
        _EDGE, options={"widths": (48, 96, 96), "blocks": (1, 2, 2), "half_pass": True} | _HALF_AS_EDGE_S
    ),
    "edge-l": dataclasses.replace(_EDGE, options=_EDGE_L | _HALF_AS_EDGE_S),
    # From trained weights (`--init`), such as those in `train/unfinished/edge-l`. `grid_l1` keeps the discriminator and
    # LPIPS from teaching a grid.
    "edge-l-gan": dataclasses.replace(
        _EDGE,
        options=_EDGE_L,
        losses=LossConfig(
            charbonnier=1.0, fft_l1=0.1, lpips=0.2, grid_l1=2.0, adversarial=0.005, adversarial_kind="ragan"
        ),
        gan=GanConfig(width=32, spectral_norm=True, learning_rate=2e-4, shift_px=4.0, warmup_steps=500),
        normalisation="none",
        data=dataclasses.replace(
            _EDGE.data,
            size_px=(192, 192),
            blur=BlurConfig(
                length_px=(0.0, 64.0), length_exponent=2, codes_share=0.5, still_share=0.06, defocus_share=0.12
            ),
        ),
        batch=8,
        learning_rate=3e-4,
        warmup_steps=100,
    ),
}
