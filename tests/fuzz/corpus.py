"""Small whole files that the fuzzers mutate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import make_image, write_clip, write_engine
from tests.rig.media import ffmpeg, make_rich

_WHOLE = {"pts": list(range(10)), "time_base": Fraction(1, 25)}
"""Time stamps for codecs that need a frame rate."""
VIDEOS: dict[str, dict[str, object]] = {
    "h264.mp4": {"audio": "aac"},
    "silent.mp4": {},
    "h264.mov": {"audio": "aac"},
    "h264.mkv": {"audio": "aac"},
    "h264.ts": {"audio": "aac"},
    "mpeg2.ts": {"codec": "mpeg2video", "audio": "mp2", **_WHOLE},
    "mpeg4.avi": {"codec": "mpeg4", "audio": "mp2", **_WHOLE},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "audio": "pcm_s16le"},
    "ffv1.mkv": {"codec": "ffv1"},
    "vp8.webm": {"codec": "libvpx", "audio": "libopus"},
}
IMAGES = ("a.png", "a.jpg", "a.webp", "a.tiff", "a.bmp")


def write_media(folder: Path) -> list[Path]:
    """Write a video of each container and an image of each format, and return their paths."""
    for name, options in VIDEOS.items():
        write_clip(folder / name, **options)
    make_rich(folder)
    interlaced = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=0.4", "-vf", "interlace", "-flags", "+ilme+ildct")
    ffmpeg(*interlaced, "-c:v", "mpeg2video", folder / "interlaced.ts")
    for name in IMAGES:
        cv2.imwrite(str(folder / name), make_image(64, 48))
    cv2.imwrite(str(folder / "deep.png"), make_image(64, 48).astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "alpha.png"), np.dstack([make_image(64, 48), np.full((48, 64), 99, np.uint8)]))
    names = [*VIDEOS, *IMAGES, "rich.mkv", "rich.mp4", "interlaced.ts", "deep.png", "alpha.png"]
    return [folder / name for name in names]


def write_network(path: Path) -> Path:
    """Write an engine with a convolution, and return its path."""
    weights = np.random.default_rng(0).normal(0, 0.1, (3, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["x0"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["features", "low", "high"], ["clipped"]),
        helper.make_node("Transpose", ["clipped"], ["frames"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["frames"], ["y"], to=TensorProto.UINT8),
    ]
    write_engine(path, nodes=nodes)
    model = onnx.load(path)
    tensors = {"weights": weights, "low": np.float32(0), "high": np.float32(255)}
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items())
    onnx.save(model, path)
    return path
