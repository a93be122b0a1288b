"""Frames and pictures as content parts of a chat request in OpenAI's form: a data URL each, after its time.

Example:
    >>> [part["type"] for part in picture_parts(clip.frames, clip.timestamps_s, kind="jpeg")]     # doctest: +SKIP
    ['text', 'image_url', 'text', 'image_url', ...]
"""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy as np
from PIL import Image

from videosafety.video.plan import Frames

JPEG_QUALITY = 95
Part = dict[str, Any]
Kind = Literal["png", "jpeg"]


def picture_parts(
    frames: Frames, times_s: Sequence[float] | None, *, kind: Kind, on_bytes: Callable[[int], None] = lambda total: None
) -> list[Part]:
    """Each frame of (T, H, W, 3) as an ``image_url``, after ``<1.0 s>`` where it has a time.

    ``on_bytes`` is told the bytes of all pictures so far, before base64, and may raise.
    """
    parts, total = list[Part](), 0
    for number, frame in enumerate(frames):
        data = picture_bytes(frame, kind=kind)
        total += len(data)
        on_bytes(total)
        if times_s is not None:
            parts.append({"type": "text", "text": f"<{times_s[number]:.1f} s>"})
        parts.append({"type": "image_url", "image_url": {"url": data_uri(data, f"image/{kind}")}})
    return parts


def picture_bytes(frame: Frames, *, kind: Kind) -> bytes:
    """A frame (H, W, 3) as a file: PNG is exact, JPEG has quality 95 and full colour."""
    file = io.BytesIO()
    how = cast(dict[str, Any], {"quality": JPEG_QUALITY, "subsampling": 0} if kind == "jpeg" else {})
    Image.fromarray(np.ascontiguousarray(frame)).save(file, format=kind, **how)
    return file.getvalue()


def data_uri(data: bytes, mime: str) -> str:
    """Bytes as an address."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
