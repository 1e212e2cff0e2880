"""`python -m benchmarks.calib_frames`: make the frames in `calib_data/`.

The frames are crops of public-domain photographs of scikit-image, at several scales and brightnesses, blurred as in
training. Some are for calibration; others, from other photographs and with their ground truth, are for measurements.

Frames that are there already stay as they are, because tests compare with them: an earlier version of the blur made the
first three variants of the pairs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from skimage import data

import calib_data
from runtime.frame import Pixels
from train.data.blur import BlurConfig, make_blurred_pair

FOLDER = Path(calib_data.__file__).parent
SIDE_PX = 256
JPEG_QUALITY = 95
SEED = 11
_NASA, _CC0 = "NASA, public domain", "CC0"
CALIBRATION = {
    "astronaut": _NASA,
    "coffee": f"Rachel Michetti, {_CC0}",
    "hubble_deep_field": _NASA,
    "moon": _NASA,
    "brick": _CC0,
    "grass": _CC0,
    "gravel": _CC0,
}
HELD_OUT = {"chelsea": f"Stefan van der Walt, {_CC0}", "rocket": f"SpaceX, {_CC0}", "camera": f"Lav Varshney, {_CC0}"}
BRIGHTNESS = (1.0, 0.55, 1.3, 1.0)
"""Brightness factor of each variant of a photograph."""
BLUR_LENGTH_PX = {
    "calibration": ((0.0, 6.0), (8.0, 20.0), (28.0, 64.0)),
    "held_out": ((0.0, 2.0), (3.0, 8.0), (8.0, 16.0), (28.0, 64.0)),
}
"""Range of the blur length of each variant, in pixels: the range of a layer's values depends on it."""


def load_photograph(name: str) -> Pixels:
    """Return a photograph of scikit-image as uint8[H, W, 3] BGR."""
    photo: Pixels = getattr(data, name)()
    conversion = cv2.COLOR_GRAY2BGR if photo.ndim == 2 else cv2.COLOR_RGB2BGR
    return np.asarray(cv2.cvtColor(photo, conversion), np.uint8)


def make_pair(
    photo: Pixels, *, length_px: tuple[float, float], brightness: float, rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """Return a blurred and a sharp crop, uint8[256, 256, 3] BGR each."""
    config = BlurConfig(length_px=length_px, object_share=0.5, object_px=(20.0, 60.0))
    crop_px = SIDE_PX + 2 * config.margin_px
    scale = max(crop_px / min(photo.shape[:2]), rng.uniform(0.6, 1.0))
    size = (round(photo.shape[1] * scale), round(photo.shape[0] * scale))
    resized = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    photo = np.clip(resized * brightness, 0, 255).astype(np.uint8)
    top, left = (int(rng.integers(0, max(1, side - crop_px + 1))) for side in photo.shape[:2])
    return make_blurred_pair(photo[top : top + crop_px, left : left + crop_px], config=config, rng=rng)


def write_images(images: Mapping[Path, Pixels]) -> None:
    """Write images as JPEG with full chroma."""
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    for path, image in images.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, *sampling])


def main() -> None:
    """Write the frames that are missing, and the manifest of all."""
    entries = []
    for photos, part, kinds in ((CALIBRATION, "calibration", ("",)), (HELD_OUT, "held_out", ("blur", "sharp"))):
        for index, (name, origin) in enumerate(photos.items()):
            for variant, (length_px, brightness) in enumerate(zip(BLUR_LENGTH_PX[part], BRIGHTNESS, strict=False)):
                paths = [FOLDER / part / kind / f"{name}_{variant}.jpg" for kind in kinds]
                if not all(path.exists() for path in paths):
                    rng = np.random.default_rng((SEED, index, variant))
                    pair = make_pair(load_photograph(name), length_px=length_px, brightness=brightness, rng=rng)
                    write_images(dict(zip(paths, pair, strict=False)))
                for path in paths:
                    digest = hashlib.sha256(path.read_bytes()).hexdigest()
                    facts = {"file": path.relative_to(FOLDER).as_posix(), "sha256": digest}
                    entries.append(facts | {"origin": f"scikit-image data.{name}", "licence": origin})
    (FOLDER / "manifest.json").write_text(json.dumps(entries, indent=1) + "\n")
    print(f"{FOLDER}: {len(entries)} images")
