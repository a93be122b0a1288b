"""Small clips of every kind, made on the spot: codecs, containers, timestamps, rotation, damage."""

import io
import struct
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np

QUIET = {"x265-params": "log-level=none"}


def cells(num_frames: int, *, height: int = 32, width: int = 32, cell: int = 4, seed: int = 0) -> np.ndarray:
    """(T, H, W, 3) uint8: flat random colours in square cells, another pattern in every frame."""
    shape = (num_frames, -(-height // cell), -(-width // cell), 3)
    grid = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return grid.repeat(cell, 1).repeat(cell, 2)[:, :height, :width]


def drift(num_frames: int, *, height: int = 96, width: int = 128) -> np.ndarray:
    """(T, H, W, 3) uint8: a pattern that moves, so that encoders use motion and B frames; no two frames alike."""
    pattern = cells(1, height=height, width=width, cell=8)[0]
    return np.stack([np.roll(pattern, (t, 3 * t), (0, 1)) for t in range(num_frames)])


def encode(
    frames: np.ndarray,
    *,
    fps: Fraction | int = 10,
    codec: str = "libx264",
    container: str = "mp4",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
    with_audio: bool = False,
    file: object = None,
) -> bytes:
    """A clip as bytes. ``pts`` counts in 1 / fps."""
    target = file or io.BytesIO()
    with av.open(target, "w", format=container, options=muxer or {}) as out:
        stream = out.add_stream(codec, rate=fps, options={"threads": "1", **(options or {})})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        if with_audio:
            add_silence(out, seconds=len(frames) / fps)
        for number, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.pts, frame.time_base = (pts[number] if pts else number), 1 / Fraction(fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return target.getvalue() if isinstance(target, io.BytesIO) else b""


def add_silence(out: av.container.OutputContainer, *, seconds: float) -> None:
    """A sound track of silence."""
    stream = out.add_stream("aac", rate=16000)
    for number in range(int(seconds * 16000 / 1024)):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, number * 1024
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def sound_only(container: str = "mp4") -> bytes:
    """A file of sound without pictures."""
    target = io.BytesIO()
    with av.open(target, "w", format=container) as out:
        add_silence(out, seconds=1)
    return target.getvalue()


def patched(data: bytes, box: bytes, offset: int, new: bytes) -> bytes:
    """An MP4 whose first box of this kind has other bytes at ``offset`` of its payload."""
    start = data.index(box) + 4 + offset
    return data[:start] + new + data[start + len(new) :]


def rotated(data: bytes, clockwise_deg: int) -> bytes:
    """An MP4 whose header asks for a clockwise turn, as phones write it."""
    one = 1 << 16
    a, b = {0: (one, 0), 90: (0, one), 180: (-one, 0), 270: (0, -one)}[clockwise_deg]
    return patched(data, b"tkhd", 40, struct.pack(">9i", a, b, 0, -b, a, 0, 0, 0, 1 << 30))


def zero_duration(data: bytes) -> bytes:
    """An MP4 that says it lasts no time."""
    for box, offset in ((b"mvhd", 16), (b"mdhd", 16), (b"tkhd", 20)):
        data = patched(data, box, offset, bytes(4))
    return data


def damaged(data: bytes, start: float, end: float) -> bytes:
    """The same file with every 50th byte flipped between two shares of its media data."""
    first = data.index(b"mdat") + 4
    size = int.from_bytes(data[first - 8 : first - 4], "big") - 8
    array = np.frombuffer(data, np.uint8).copy()
    array[first + int(start * size) : first + int(end * size) : 50] ^= 0x55
    return array.tobytes()
