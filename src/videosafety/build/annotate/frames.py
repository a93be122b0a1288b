"""The frames of a clip as an annotator gets them: JPEG content parts, each after its time. Kept for the next annotator.

They are decoded in a process of their own, one clip at a time: a file that kills the decoder costs that file.

Example:
    >>> len(frames_of("clips/a.mp4", kind="video", sha256=None, num_frames=16, max_side_px=512))    # doctest: +SKIP
    32
"""

import threading
from functools import lru_cache
from typing import Literal

from videosafety.build.pool import Crash, Isolated
from videosafety.video.parts import Part, picture_parts
from videosafety.video.plan import Sampling
from videosafety.video.sample import load_picture, sample_clip

MOST_FPS = 1000.0  # above any clip's, so that frames are spread evenly from the first to the last
KEPT_CLIPS = 32
Wanted = tuple[str, Literal["video", "image"], str | None, int, int]
_DECODING = threading.Lock()  # several annotators ask for the same clip at once, and it is decoded once


class CrashedError(Exception):
    """The decoder died of a file; says how."""


def frames_of(
    path: str, *, kind: Literal["video", "image"], sha256: str | None, num_frames: int, max_side_px: int
) -> tuple[Part, ...]:
    """The content parts of a clip (a time and a frame, ``num_frames`` times) or of a picture (one part).

    Raises:
        MediaError: the file cannot be used, or has another hash than ``sha256``.
        CrashedError: the decoder died of it.
    """
    with _DECODING:
        return _kept((path, kind, sha256, num_frames, max_side_px))


@lru_cache(maxsize=KEPT_CLIPS)
def _kept(wanted: Wanted) -> tuple[Part, ...]:
    made: tuple[Part, ...] | Crash = _isolated(wanted)
    if isinstance(made, Crash):
        raise CrashedError(made.how)
    return made


def decoded(wanted: Wanted) -> tuple[Part, ...]:
    """What the process does."""
    path, kind, sha256, num_frames, max_side_px = wanted
    if kind == "image":
        pixels = load_picture(path, max_side_px=max_side_px, sha256=sha256).pixels
        return tuple(picture_parts(pixels[None], None, kind="jpeg"))
    sampling = Sampling(fps=MOST_FPS, max_frames=num_frames, max_side_px=max_side_px)
    clip = sample_clip(path, sampling=sampling, sha256=sha256)
    return tuple(picture_parts(clip.frames, clip.timestamps_s, kind="jpeg"))


_isolated = Isolated(decoded)
