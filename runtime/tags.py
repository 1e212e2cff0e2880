"""Titles, dates, places and other tags of media files: which of them a copy of the file keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping

import av

_OF_THE_FILE = re.compile(
    r"(major_brand|minor_version|compatible_brands|encoder|vendor_id|rotate|source_id|duration|bps|"
    r"number_of_(frames|bytes)|_statistics_\w+)(-\w+)?",
    re.IGNORECASE,
)
"""Tags that describe the file or its encoder, or that muxers write by themselves."""
_DEFAULT_NAMES = frozenset({"VideoHandler", "SoundHandler", "SubtitleHandler", "DataHandler"})
"""Names of tracks that FFmpeg writes where there is none."""
# Tags that FFmpeg writes into the ordinary form of a container, which every player reads.
_OF_MOV = frozenset({"title", "artist", "album", "date", "comment", "genre", "copyright", "creation_time", "location"})
_OF_MP4 = _OF_MOV | {
    *("album_artist", "composer", "grouping", "lyrics", "description", "synopsis", "keywords", "track", "disc"),
    *("show", "network", "episode_id", "episode_sort", "season_number", "media_type", "hd_video"),
    *("gapless_playback", "compilation"),
}


def kept_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a file or a track that belong to its contents; common keys are in lower case."""
    kept = {}
    for key, value in tags.items():
        is_double = tags.get(re.sub("-[a-z]{3}$", "", key)) == value and key[-4:-3] == "-"  # location-eng of location
        if not (_OF_THE_FILE.fullmatch(key) or value in _DEFAULT_NAMES or is_double):
            kept[key.lower() if key.lower() in _OF_MP4 else key] = value
    return kept


def tag_flags(suffix: str, tags: Mapping[str, str]) -> str:
    """Return the `movflags` that a container needs to hold these tags.

    MP4 and MOV hold any tag only in a form that fewer programs read, which is used where the ordinary one is too small.
    """
    ordinary = {".mp4": _OF_MP4, ".m4v": _OF_MP4, ".mov": _OF_MOV}.get(suffix)
    return "" if ordinary is None or ordinary.issuperset(tags) else "+use_metadata_tags"


def copy_track_tags(source: av.stream.Stream, target: av.stream.Stream) -> None:
    """Give a track the language, title and other tags of another, and what it is for."""
    target.metadata.update(track_tags(source))
    target.disposition = source.disposition


def track_tags(track: av.stream.Stream) -> dict[str, str]:
    """Return the tags of a track; MP4 calls its title a name."""
    tags = kept_tags(track.metadata)
    if "name" in tags:
        tags.setdefault("title", tags.pop("name"))
    return tags


def has_more_than_frames_and_sound(container: av.container.InputContainer) -> bool:
    """Return whether a file has tags, chapters, or tracks of another kind."""
    kinds = [stream.type for stream in container.streams]
    return bool(
        kept_tags(container.metadata)
        or container.chapters()
        or kinds.count("video") > 1
        or {*kinds} - {"video", "audio"}
    )
