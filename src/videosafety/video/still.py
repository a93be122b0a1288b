"""Still images: recognise one by its bytes, state its facts, decode it upright and opaque.

A picture that moves (animated GIF, PNG or WebP) or has several pages is no still: as a picture it is refused, since
taking its first frame would silently drop the rest. Transparency is shown on white; 16-bit grey is scaled to 8 bits.

Example:
    >>> with open_media("a.png", LIMITS) as media:
    ...     pixels = decode_still(media, max_side_px=448)  # (H, W, 3) uint8
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from videosafety.core.errors import MediaFault
from videosafety.video.plan import Frames, fitted
from videosafety.video.source import Media, check_frame_size

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # none that runs a program or refers to another file
EXIF_ORIENTATION = 0x0112
CLOCKWISE_DEG = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}  # by EXIF orientation; mirrored ones as turned
HEAD_BYTES = 16
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF8", b"II*\x00", b"MM\x00*")


@dataclass(frozen=True)
class StillFacts:
    """An image's format and size as shown, px, and the clockwise turn that its metadata asks for."""

    codec: str
    width_px: int
    height_px: int
    rotation_deg: int


def is_still(media: Media) -> bool:
    """Whether the bytes are a still image's: an image format, and it does not move."""
    media.file.seek(0)
    head = media.file.read(HEAD_BYTES)
    if not (head.startswith(MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")):
        return False
    with _image(media) as image:
        return not _moves(image)


def still_facts(media: Media) -> StillFacts:
    """Format and size from the header. Raises MediaError CORRUPT, TOO_LARGE."""
    with _image(media) as image:
        turn = CLOCKWISE_DEG.get(image.getexif().get(EXIF_ORIENTATION, 1), 0)
        width, height = image.size if turn % 180 == 0 else image.size[::-1]
        return StillFacts((image.format or "unknown").lower(), width, height, turn)


def decode_still(media: Media, *, max_side_px: int | None) -> Frames:
    """Pixels (H, W, 3) uint8 RGB, upright, longer side at most ``max_side_px`` (bicubic, never enlarged).

    Raises:
        MediaError: CORRUPT (no image, cut off, or it moves), TOO_LARGE.
    """
    with _image(media) as image:
        if _moves(image):
            fix = "list it as a video, or save the frame that matters as PNG"
            raise media.fault(MediaFault.CORRUPT, "is a moving or many-paged picture, not a still image", fix=fix)
        upright = _opaque(ImageOps.exif_transpose(image))
        size = fitted(upright.width, upright.height, max_side_px=max_side_px)
        if size != upright.size:
            upright = upright.resize(size, Image.Resampling.BICUBIC, reducing_gap=None)
        return np.array(upright, dtype=np.uint8)


def _moves(image: Image.Image) -> bool:
    return bool(getattr(image, "is_animated", False)) and image.format != "MPO"  # MPO: a photograph with extras


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray((np.asarray(image, dtype=np.int64).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return image.convert("RGB")


@contextmanager
def _image(media: Media) -> Iterator[Image.Image]:
    """The opened image, its header within the limits; a fault of decoding inside the block becomes CORRUPT."""
    media.file.seek(0)
    fix = "replace it by a whole copy, or save it as PNG"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit follows
            image = Image.open(media.file, formats=FORMATS)
        check_frame_size(media, *image.size)
        yield image
    except Image.DecompressionBombError as error:
        raise media.fault(MediaFault.TOO_LARGE, "is a far too large image", fix="scale it down") from error
    except UnidentifiedImageError as error:
        raise media.fault(MediaFault.CORRUPT, "is not a readable image", fix=fix) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise media.fault(MediaFault.CORRUPT, f"is a damaged image ({error})", fix=fix) from error
