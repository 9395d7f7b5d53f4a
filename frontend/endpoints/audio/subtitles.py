"""Segments of a transcription as subtitles: SubRip and WebVTT. Times are in seconds."""

from collections.abc import Iterable, Mapping
from typing import Any


def to_srt(segments: Iterable[Mapping[str, Any]]) -> str:
    """Return SubRip: numbered, commas before the milliseconds."""
    blocks = (
        f"{number}\n{_time(segment['start'], ',')} --> {_time(segment['end'], ',')}\n{segment['text'].strip()}\n"
        for number, segment in enumerate(segments, 1)
    )
    return "\n".join(blocks)


def to_vtt(segments: Iterable[Mapping[str, Any]]) -> str:
    """Return WebVTT. An arrow in the text would begin another cue."""
    blocks = (
        f"{_time(segment['start'], '.')} --> {_time(segment['end'], '.')}\n"
        f"{segment['text'].strip().replace('-->', '->')}\n"
        for segment in segments
    )
    return "\n".join(["WEBVTT\n", *blocks])


def _time(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
