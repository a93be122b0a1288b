"""Frames as a strip of small pictures inside the page. The blur is the page's: see ``templates/components.html.j2``.

Clips of the toy world are smaller than a thumbnail and stay exact (PNG, enlarged with hard pixels); larger frames are
shrunk (to ``MAX_SIDE_PX``, unless another size is asked for) and stored as JPEG.

Example:
    >>> frames = np.zeros((2, 40, 40, 3), dtype=np.uint8)
    >>> [picture.width_px for picture in strip(frames)]
    [40, 40]
"""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image as PILImage

from videosafety.html.text import data_uri

MAX_SIDE_PX = 192
PIXELATED_BELOW_PX = 128


@dataclass(frozen=True)
class Picture:
    """One frame: a data URI, its size in px, and whether enlarging keeps hard pixels."""

    uri: Markup
    width_px: int
    height_px: int
    pixelated: bool


def strip(frames: npt.NDArray[np.uint8], *, max_side_px: int = MAX_SIDE_PX) -> tuple[Picture, ...]:
    """Pictures of ``frames`` (N, height, width, 3), uint8 RGB, the longer side at most ``max_side_px``."""
    return tuple(_picture(PILImage.fromarray(frame), max_side_px) for frame in frames)


def _picture(frame: PILImage.Image, max_side_px: int) -> Picture:
    tiny = max(frame.size) <= PIXELATED_BELOW_PX
    frame = frame.convert("RGB")
    frame.thumbnail((max_side_px, max_side_px))
    out = io.BytesIO()
    if tiny:
        frame.save(out, format="PNG", optimize=True)
    else:
        frame.save(out, format="JPEG", quality=72)
    uri = data_uri(out.getvalue(), media_type="image/png" if tiny else "image/jpeg")
    return Picture(uri=uri, width_px=frame.width, height_px=frame.height, pixelated=tiny)
