"""Probe a media file: what it is, or why it cannot be used, without decoding more than its first two frames.

Every fault has its word (``MediaFault``) and one sentence with the file and the fix. What a header claims is held
against ``Limits`` first, so an absurd size, frame count or duration costs nothing; then the packets are walked (not
decoded), so a file that was cut off is found here too. Damage inside a picture is found by ``sample_clip``.

Example:
    >>> probe("clips/a.mp4").num_frames
    282
"""

from dataclasses import dataclass
from typing import Literal

from videosafety.core.errors import MediaError, MediaFault
from videosafety.video.decode import first_frames
from videosafety.video.source import LIMITS, AnyPath, Limits, Media, open_media
from videosafety.video.still import is_still, still_facts
from videosafety.video.timeline import read_packets, single_frame

__all__ = ["LIMITS", "Limits", "MediaInfo", "plays", "probe"]


@dataclass(frozen=True)
class MediaInfo:
    """Facts of a media file. ``width_px`` and ``height_px`` are as shown, after the rotation in the metadata."""

    path: str
    kind: Literal["video", "image"]
    codec: str  # h264, hevc, av1, …; for an image its format: png, jpeg, …
    width_px: int
    height_px: int
    fps: float | None  # frames per second on average; None for an image
    num_frames: int  # shown; exact for H.264, H.265, VP9 and AV1, else the packets; 1 for an image
    duration_s: float  # from the first frame to the end of the last; 0 for an image
    has_audio: bool
    rotation_deg: int  # clockwise turn that the metadata asks for: 0, 90, 180 or 270
    num_bytes: int
    sha256: str | None  # of the file's bytes, when asked for


def probe(path: AnyPath, *, limits: Limits = LIMITS, with_sha256: bool = False) -> MediaInfo:
    """Say what a media file is.

    Args:
        path: an ordinary file; its bytes decide what it is, not its name.
        limits: what it may cost.
        with_sha256: whether to hash its bytes, too.

    Raises:
        MediaError: with the fault MISSING, EMPTY, UNREADABLE, CORRUPT, NO_VIDEO, SINGLE_FRAME (a video file of one
            frame; a still image is no fault here), NO_DURATION, TOO_LARGE or TIMEOUT.
    """
    with open_media(path, limits) as media:
        sha256 = media.sha256() if with_sha256 else None
        return _probe_still(media, sha256) if is_still(media) else _probe_video(media, sha256)


def plays(path: AnyPath, *, limits: Limits = LIMITS) -> bool:
    """Whether a file that is damaged or cut off begins as a video: its first two frames come out. Nothing is raised."""
    try:
        with open_media(path, limits) as media:
            return not is_still(media) and len(first_frames(media, 2)) == 2
    except MediaError:
        return False


def _probe_video(media: Media, sha256: str | None) -> MediaInfo:
    packets = read_packets(media)
    frames = first_frames(media, 2)
    if len(frames) == 1:
        raise single_frame(media)
    if not frames:
        raise media.fault(MediaFault.CORRUPT, "no frame can be decoded", fix="replace it by a whole copy")
    width, height, turns = frames[0]
    with media.container() as container:
        has_audio = bool(container.streams.audio)
    return MediaInfo(
        path=media.path,
        kind="video",
        codec=packets.codec,
        width_px=width,
        height_px=height,
        fps=float(packets.rate) if packets.rate else packets.num_shown / packets.end_s,
        num_frames=packets.num_shown,
        duration_s=packets.end_s,
        has_audio=has_audio,
        rotation_deg=-turns % 4 * 90,
        num_bytes=media.status.st_size,
        sha256=sha256,
    )


def _probe_still(media: Media, sha256: str | None) -> MediaInfo:
    facts = still_facts(media)
    return MediaInfo(
        path=media.path,
        kind="image",
        codec=facts.codec,
        width_px=facts.width_px,
        height_px=facts.height_px,
        fps=None,
        num_frames=1,
        duration_s=0.0,
        has_audio=False,
        rotation_deg=facts.rotation_deg,
        num_bytes=media.status.st_size,
        sha256=sha256,
    )
