"""Write clips and pictures: small, faithful, byte-identical on every run, and whole or not there.

H.264 in MP4. Even sizes are 4:2:0, which every browser plays; colours are converted here and not by the scaler, each
2x2 block to its mean, so flat areas aligned to 2 px come back exact up to quantisation (mean error about 1 of 255 at
the default crf). Odd sizes cannot be 4:2:0 in H.264 and are 4:4:4: exact to the pixel, played by Chrome and by our
decoder, but not by every browser. Tagged BT.709, limited range.

Example:
    >>> write_mp4("a.mp4", frames, fps=1.0)  # (T, H, W, 3) uint8
"""

import io
import os
from fractions import Fraction

import av
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from videosafety.core.errors import InputError
from videosafety.core.store import write_bytes
from videosafety.video.plan import Frames

AnyPath = str | os.PathLike[str]

KR, KG, KB = 0.2126, 0.7152, 0.0722  # BT.709
DETERMINISTIC = "mbtree=0"  # at 32 px x264's macroblock tree reads memory that nobody wrote: bytes differed by chance
BIT_EXACT = {"fflags": "+bitexact"}  # no encoder name, no time of writing


def write_mp4(path: AnyPath, frames: Frames, *, fps: float, crf: int = 10) -> None:
    """Write a clip as H.264 in MP4; the same frames give the same bytes.

    Args:
        path: the file; its folder is made when missing.
        frames: (T, H, W, 3) uint8 RGB, T >= 2 (a single frame is an image), H and W >= 2.
        fps: frames per second, above 0 and at most 240.
        crf: quality, 0 (best) to 51.

    Raises:
        InputError: the frames or the numbers are not of this kind.
        StorageError: the file cannot be written.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or min(frames.shape[:3]) < 2:
        what = f"frames are {frames.dtype} of shape {frames.shape}"
        raise InputError(what, where=str(path), fix="give uint8 (T, H, W, 3) with T, H and W at least 2")
    if not 0 < fps <= 240:
        raise InputError(f"fps is {fps}", where=str(path), fix="use a rate above 0 and at most 240")
    if not 0 <= crf <= 51:
        raise InputError(f"crf is {crf}", where=str(path), fix="use 0 (best) to 51")
    rate = Fraction(fps).limit_denominator(1001)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options=BIT_EXACT) as container:
        stream = _stream(container, frames.shape[2], frames.shape[1], rate, crf)
        for number, rgb in enumerate(frames):
            frame = _frame(rgb, stream.pix_fmt)
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    write_bytes(path, file.getvalue())


def write_png(path: AnyPath, pixels: Frames) -> None:
    """Write a picture (H, W, 3) uint8 RGB as PNG; the same pixels give the same bytes.

    Raises:
        InputError: the pixels are not of this kind.
        StorageError: the file cannot be written.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or min(pixels.shape) < 1:
        what = f"pixels are {pixels.dtype} of shape {pixels.shape}"
        raise InputError(what, where=str(path), fix="give uint8 (H, W, 3)")
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="PNG")
    write_bytes(path, file.getvalue())


def _stream(container: OutputContainer, width: int, height: int, rate: Fraction, crf: int) -> VideoStream:
    options = {"crf": str(crf), "threads": "1", "x264-params": DETERMINISTIC}
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.width, stream.height = width, height
    stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
    context = stream.codec_context
    context.thread_count = 1
    context.flags |= Flags.bitexact
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    return stream


def _frame(rgb: Frames, pix_fmt: str | None) -> VideoFrame:
    """One frame as Y'CbCr planes, BT.709 (ITU-R BT.709-6 section 3), limited range."""
    red, green, blue = np.moveaxis(rgb.astype(np.float64), 2, 0)
    luma = KR * red + KG * green + KB * blue
    chroma = [(blue - luma) / (2 * (1 - KB)), (red - luma) / (2 * (1 - KR))]
    if pix_fmt == "yuv420p":
        height, width = luma.shape
        chroma = [c.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for c in chroma]
    frame = VideoFrame(rgb.shape[1], rgb.shape[0], pix_fmt or "yuv420p")
    frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
    values = [16 + luma * 219 / 255, *(128 + c * 224 / 255 for c in chroma)]
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(_padded(value, plane.line_size))
    return frame


def _padded(values: NDArray[np.float64], line_size: int) -> bytes:
    rows = np.zeros((values.shape[0], line_size), np.uint8)
    rows[:, : values.shape[1]] = np.rint(values).clip(0, 255)
    return rows.tobytes()
