"""Facts about 10 bits and high dynamic range in files, as ffprobe and PyAV tell them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import av

from runtime.hdr_metadata import HdrMetadata
from tests.rig.hdr import DISPLAY_STEPS, write_hdr
from tests.rig.marked_table import DOCS, MarkedTable, format_rows
from tests.rig.media import make_clip

TABLE = MarkedTable(DOCS / "files.md", "hdr", "--write-files")
OUTPUTS = {"h264": ".mp4", "hevc": ".mov", "av1": ".mkv"}
"""Suffix of the output of each codec: every container once."""
HEADER = [
    "source and outputs",
    "codec",
    "pixels",
    "primaries",
    "transfer",
    "matrix",
    "range",
    "display",
    "MaxCLL, MaxFALL",
]
_STATED = {
    "hdr10": ("bt2020", "smpte2084", "bt2020nc", "tv"),
    "hlg": ("bt2020", "arib-std-b67", "bt2020nc", "tv"),
    "sdr": ("bt709", "bt709", "bt709", "tv"),
    "full": ("bt709", "bt709", "bt709", "pc"),
}
_BT709 = "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
_OPTIONS = ("-color_primaries", "-color_trc", "-colorspace", "-color_range")


def _tags(kind: str) -> list[str]:
    return [word for pair in zip(_OPTIONS, _STATED[kind], strict=True) for word in pair]


def make_sources(folder: Path) -> dict[str, Path]:
    """Write a file for each row of the table, and return their paths by the names of the rows."""
    deep = ("-pix_fmt", "yuv420p10le")
    x265 = ("-x265-params", f"log-level=none:hdr10=1:master-display={DISPLAY_STEPS}:max-cll=1000,400")
    quiet = ("-x265-params", "log-level=none")
    hdr10 = make_clip(folder / "hdr10.mp4", *_tags("hdr10"), *x265, *deep, codec="libx265", frames=5)
    av1 = folder / "av1.mkv"
    write_hdr(av1, "libsvtav1")
    return {
        "HEVC, HDR10": hdr10,
        "HEVC, HLG": make_clip(folder / "hlg.mp4", *_tags("hlg"), *quiet, *deep, codec="libx265", frames=5),
        "AV1, HDR10": av1,
        "ProRes 4:2:2": make_clip(
            folder / "prores.mov", "-pix_fmt", "yuv422p10le", filters=_BT709, codec="prores_ks", frames=5
        ),
        "HEVC, 8 bits": make_clip(
            folder / "hevc.mp4", *_tags("sdr"), *quiet, "-pix_fmt", "yuv420p", codec="libx265", frames=5
        ),
        "AV1, 8 bits, full range": make_clip(
            folder / "full.mp4", *_tags("full"), "-cpu-used", 8, "-pix_fmt", "yuv420p", codec="libaom-av1", frames=5
        ),
    }


def read_facts(path: Path) -> list[str]:
    """Return the cells of a row: what ffprobe says of the stream, and the metadata of its first frame."""
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_streams", "-of", "json", str(path)]
    stream = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["streams"][0]
    names = ("color_primaries", "color_transfer", "color_space", "color_range")
    with av.open(str(path)) as container:
        metadata = HdrMetadata.read(next(container.decode(video=0)))
    display, light = metadata.display, metadata.light
    luminance = f"{float(display.min_luminance):.3f} to {float(display.max_luminance):.0f} cd/m²" if display else ""
    return [
        f"{stream['codec_name']} {stream.get('profile', '')}".strip(),
        stream["pix_fmt"],
        *(stream.get(name, "unknown") for name in names),
        luminance,
        "{}, {}".format(*light) if light else "",
    ]


def format_table(sources: dict[str, Path], restore: Callable[[Path, str], Path]) -> str:
    """Return a table with a row for each source, and one for each of its outputs.

    `restore` runs a source into an output of a codec.
    """
    rows = []
    for name, path in sources.items():
        rows.append([f"**{name}**", *read_facts(path)])
        rows += [[f"to `{OUTPUTS[codec]}`", *read_facts(restore(path, codec))] for codec in OUTPUTS]
    return format_rows([HEADER, ["---"] * len(HEADER), *rows])
