"""The frames of a clip as an annotator gets them: JPEG content parts, each after its time. Kept for the next annotator.

Example:
    >>> len(frames_of("clips/a.mp4", kind="video", sha256=None, num_frames=16, max_side_px=512))    # doctest: +SKIP
    32
"""

import threading
from functools import lru_cache
from typing import Literal

from videosafety.video.parts import Part, picture_parts
from videosafety.video.plan import Sampling
from videosafety.video.sample import load_picture, sample_clip

MOST_FPS = 1000.0  # above any clip's, so that frames are spread evenly from the first to the last
KEPT_CLIPS = 32
_DECODING = threading.Lock()  # one at a time: several annotators ask for the same clip at once, and it is decoded once


def frames_of(
    path: str, *, kind: Literal["video", "image"], sha256: str | None, num_frames: int, max_side_px: int
) -> tuple[Part, ...]:
    """The content parts of a clip (a time and a frame, ``num_frames`` times) or of a picture (one part).

    Raises:
        MediaError: the file cannot be used, or has another hash than ``sha256``.
    """
    with _DECODING:
        return _parts(path, kind, sha256, num_frames, max_side_px)


@lru_cache(maxsize=KEPT_CLIPS)
def _parts(
    path: str, kind: Literal["video", "image"], sha256: str | None, num_frames: int, max_side_px: int
) -> tuple[Part, ...]:
    if kind == "image":
        pixels = load_picture(path, max_side_px=max_side_px, sha256=sha256).pixels
        return tuple(picture_parts(pixels[None], None, kind="jpeg"))
    sampling = Sampling(fps=MOST_FPS, max_frames=num_frames, max_side_px=max_side_px)
    clip = sample_clip(path, sampling=sampling, sha256=sha256)
    return tuple(picture_parts(clip.frames, clip.timestamps_s, kind="jpeg"))
