"""Video files: recognise them by name, where a folder holds files of many kinds."""

from __future__ import annotations

from pathlib import Path

_CONTAINERS = "mp4 m4v mov qt mkv webm avi divx wmv asf flv f4v 3gp 3g2 ogv ogm nut"
_CAMERAS_AND_DISCS = "mpg mpeg mpe m1v m2v vob ts m2ts mts m2t mod tod trp dav mxf gxf dv rm rmvb wtv"
_STREAMS_AND_ANIMATIONS = "y4m h264 264 avc h265 265 hevc ivf obu mjpeg mjpg gif"
VIDEO_SUFFIXES = frozenset(
    f".{name}" for names in (_CONTAINERS, _CAMERAS_AND_DISCS, _STREAMS_AND_ANIMATIONS) for name in names.split()
)


def is_video(path: Path) -> bool:
    """Return whether a file name has the suffix of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES
