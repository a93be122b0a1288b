"""A folder of clips with known faults: whole, static, copies of four kinds, cut, flipped, empty, sound alone, a page.

Every file is drawn from (seed, number); ``truth`` maps a file to the state and the reason that it must end in. A file
that is cut or flipped may still play: what is expected of these is that nothing crashes and that they get a state. One
that was stopped (a recording that broke off: its head is whole) plays up to there.
"""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from videosafety.video.write import write_mp4

Frames = NDArray[np.uint8]
COPIES = ("copy", "smaller", "trimmed", "mirrored")
KINDS = ("whole",) * 8 + ("static", *COPIES, "cut", "stopped", "flipped", "empty", "sound", "page")
SIDE = 64
TRUTH = {
    "whole": ("ok", ""), "static": ("filtered", "static"), "copy": ("filtered", "duplicate:exact"),
    "smaller": ("filtered", "duplicate:near"), "trimmed": ("filtered", "duplicate:near"),
    "mirrored": ("filtered", "duplicate:near"), "empty": ("quarantined", "media:empty"),
    "sound": ("quarantined", "media:no_video"), "page": ("quarantined", "media:corrupt"),
    "stopped": ("partial", "media:corrupt"), "cut": ("", ""), "flipped": ("", ""),
}  # fmt: skip


def scene(seed: int, number: int, *, moves: bool = True, num_frames: int = 16) -> Frames:
    """(T, 64, 64, 3): a smooth random picture, a window of which moves over a larger one, with a brighter blob."""
    rng = np.random.default_rng((seed, number))
    field = gaussian_filter(rng.normal(size=(3 * SIDE, 3 * SIDE, 3)), (6, 6, 0))
    field = 255 * (field - field.min()) / np.ptp(field)
    path = rng.uniform(0, 2 * SIDE, size=2) + np.cumsum(rng.uniform(-9, 9, size=2) * np.ones((num_frames, 2)), axis=0)
    tops = np.clip(path if moves else path[:1].repeat(num_frames, axis=0), 0, 2 * SIDE).astype(int)
    return np.stack([field[y : y + SIDE, x : x + SIDE] for y, x in tops]).astype(np.uint8)


def build(folder: Path, *, num: int, seed: int = 0) -> dict[str, str]:
    """Write ``num`` files; the kind of each by name. Copies follow what they are a copy of."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = dict(_files(folder, num, seed))
    return kinds


def _files(folder: Path, num: int, seed: int) -> Iterator[tuple[str, str]]:
    originals: list[int] = []
    for number in range(num):
        kind = KINDS[number % len(KINDS)]
        path = folder / f"{number:05d}-{kind}.mp4"
        back = COPIES.index(kind) if kind in COPIES else 0  # no whole clip is copied in two ways
        source = originals[-1 - back] if originals else number
        if kind == "whole":
            originals.append(number)
            write_mp4(path, scene(seed, number), fps=8)
        elif kind == "static":
            write_mp4(path, scene(seed, number, moves=False), fps=8)
        elif kind == "copy":
            shutil.copyfile(folder / f"{source:05d}-whole.mp4", path)
        elif kind == "smaller":
            write_mp4(path, zoom(scene(seed, source), (1, 0.75, 0.75, 1), order=1), fps=8, crf=32)
        elif kind == "trimmed":
            write_mp4(path, scene(seed, source)[2:], fps=8)
        elif kind == "mirrored":
            write_mp4(path, scene(seed, source)[:, :, ::-1], fps=8)
        else:
            path.write_bytes(_broken(kind, folder / f"{source:05d}-whole.mp4", np.random.default_rng((seed, number))))
        yield path.name, kind


def _broken(kind: str, original: Path, rng: np.random.Generator) -> bytes:
    data = bytearray(original.read_bytes())
    if kind == "cut":
        return bytes(data[: int(len(data) * rng.uniform(0.2, 0.9))])
    if kind == "stopped":
        data = _streamed(original)
        return data[: int(len(data) * rng.uniform(0.7, 0.9))]
    if kind == "flipped":
        for place in rng.integers(0, len(data), size=20).tolist():
            data[place] ^= 1 << int(rng.integers(8))
        return bytes(data)
    if kind == "sound":
        return _sound(rng)
    page = f"<!doctype html><title>clip.mp4</title><script>{rng.random()}</script>"
    return b"" if kind == "empty" else page.encode()


def _streamed(original: Path) -> bytes:
    """The clip as Matroska, whose head comes first."""
    file = io.BytesIO()
    with av.open(str(original)) as source, av.open(file, "w", format="matroska") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    return file.getvalue()


def _sound(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16000)
        for number in range(16):
            frame = av.AudioFrame.from_ndarray(
                rng.normal(size=(1, 1024)).astype(np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 16000, 1024 * number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()
