"""Decode chosen frames and nothing else that can be left out, with pixels equal to a plain decode from the start.

Two short cuts are exact, and only they are taken. Each chosen frame needs the packets from the key frame before it (in
file order and in time) up to itself: the rest of a group of pictures is not fed to the decoder. Of those that are fed,
H.264 pictures that no other picture refers to are dropped unless chosen. When a chosen frame does not come out this way
the file is decoded again from the start without short cuts, and when it does not come out then, the file is corrupt:
what could be decoded is not used. One thread per decode; many files in parallel are many processes.

Example:
    >>> with open_media("clips/a.mp4", LIMITS) as media:
    ...     timeline, packets = read_timeline(media)
    ...     decode_frames(media, packets, timeline.ticks[[0, 24]], keep)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from videosafety.core.errors import MediaError, MediaFault
from videosafety.video.plan import Frames, fitted
from videosafety.video.source import REENCODE, Media, check_frame_size
from videosafety.video.timeline import (
    Packets,
    Timeline,
    no_duration,
    packet_timeline,
    rank_timeline,
    read_packets,
    single_frame,
)

# At native size the plain converter (each chroma sample serves its 2x2 pixels) keeps flat colours; when scaling,
# bicubic with exact rounding. Both give the same bytes on every run.
SWS_BICUBIC, SWS_ACCURATE_RND, SWS_BITEXACT = 0x4, 0x40000, 0x80000  # libswscale/swscale.h; PyAV 17 has no names
FLAGS_NATIVE = SWS_BICUBIC | SWS_BITEXACT
FLAGS_SCALED = FLAGS_NATIVE | SWS_ACCURATE_RND

Keep = Callable[[int, VideoFrame], None]  # (position among the chosen, frame)


def read_timeline(media: Media) -> tuple[Timeline, Packets]:
    """When each frame is shown. Decodes nothing, unless the codec or the timestamps leave no other way.

    Raises:
        MediaError: NO_VIDEO, SINGLE_FRAME, NO_DURATION, TOO_LARGE, CORRUPT, TIMEOUT.
    """
    packets = read_packets(media)
    if packets.are_frames:
        return packet_timeline(packets), packets
    num_frames = sum(1 for _ in _decode_all(media))
    if num_frames == 0:
        raise _lost(media, "no frame can be decoded")
    if num_frames == 1:
        raise single_frame(media)
    if not packets.rate and packets.end_s <= 0:
        raise no_duration(media)
    return rank_timeline(packets, num_frames), packets


def decode_frames(media: Media, packets: Packets, ticks: NDArray[np.int64], keep: Keep) -> None:
    """Hand every chosen frame to ``keep``, each at least once, in any order; all of them, or an error.

    Args:
        media: the open file.
        packets: its packets, from ``read_timeline``.
        ticks: (T,) which frames, as the timeline names them.
        keep: called with the position in ``ticks`` and the frame, which it must not hold on to.

    Raises:
        MediaError: CORRUPT when a chosen frame cannot be decoded without damage; TIMEOUT.
    """
    wanted = {int(tick): position for position, tick in enumerate(ticks)}
    if packets.are_frames and _decode_needed(media, packets, wanted, keep):
        return
    missing = dict(wanted)
    for rank, frame in enumerate(_decode_all(media)):
        position = missing.pop(frame.pts if packets.are_frames and frame.pts is not None else rank, None)
        if position is not None:
            keep(position, frame)
        if not missing:
            return
    raise _lost(media, f"{len(missing)} of {len(wanted)} chosen frames cannot be decoded")


def _lost(media: Media, what: str) -> MediaError:
    return media.fault(MediaFault.CORRUPT, what, fix=f"replace it by a whole copy, or {REENCODE}")


def _decode_all(media: Media) -> Iterator[VideoFrame]:
    """Every shown frame in order, without short cuts. Raises MediaError CORRUPT on the first damage."""
    with media.container() as container:
        stream = media.video_stream(container)
        for packet in container.demux(stream):
            media.check_time()
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise _lost(media, f"a frame is damaged at {_time_s(frame):.2f} s")
                yield frame


def _decode_needed(media: Media, packets: Packets, wanted: dict[int, int], keep: Keep) -> bool:
    """The short cuts. False: something did not come out as the timeline says, so they cannot be trusted here."""
    missing = dict(wanted)
    try:
        with media.container() as container:
            stream = media.video_stream(container)
            for frame in _feed(media, stream, packets, set(wanted)):
                if frame.is_corrupt:
                    return False  # chosen or not: later frames may refer to it
                position = missing.pop(frame.pts, None) if frame.pts is not None else None
                if position is not None:
                    keep(position, frame)
                if not missing:
                    return True
    except MediaError as error:
        if error.fault is not MediaFault.CORRUPT:
            raise
    return False


def _feed(media: Media, stream: VideoStream, packets: Packets, wanted: set[int]) -> Iterator[VideoFrame]:
    """Decode the needed runs of packets; between two runs the decoder is emptied and starts afresh at a key frame."""
    context, container = stream.codec_context, cast(InputContainer, stream.container)
    may_drop = packets.codec == "h264"
    runs = iter(needed_runs(packets, wanted))
    first, last = next(runs)
    number = -1
    for packet in container.demux(stream):
        if packet.size == 0 and packet.pts is None:
            continue
        number += 1
        media.check_time()
        if number < first:
            continue
        if may_drop:
            context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        yield from packet.decode()
        if number == last:
            yield from context.decode(None)
            context.flush_buffers()
            first, last = next(runs, (-1, -1))
            if last < 0:
                return


def needed_runs(packets: Packets, wanted: set[int]) -> list[tuple[int, int]]:
    """Runs (first, last) of packet numbers that the wanted timestamps need, in file order, disjoint.

    A frame needs what lies between it and the last key frame that is before it both in the file and in time: frames
    that follow a key frame in the file but precede it in time may refer to the group before.
    """
    keys = np.flatnonzero(packets.is_key)
    runs: list[tuple[int, int]] = []
    for last in np.flatnonzero(np.isin(packets.pts, list(wanted)) & packets.is_shown):
        before = keys[(keys <= last) & (packets.pts[keys] <= packets.pts[last])]
        first = int(before[-1]) if len(before) else 0
        while runs and first <= runs[-1][1] + 1:
            first = min(first, runs.pop()[0])
        runs.append((first, int(last)))
    return runs


def _time_s(frame: VideoFrame) -> float:
    return float(frame.pts * frame.time_base) if frame.pts is not None and frame.time_base else 0.0


@dataclass
class FrameStack:
    """Collects decoded frames as RGB: scaled to one size, turned upright. ``frames`` is (T, H, W, 3) after the first.

    The matrix (BT.601, BT.709, BT.2020) and the range (limited, full) are the stream's; where it does not say, FFmpeg's
    rule holds: BT.601, limited. No tone mapping of high dynamic range, no correction of non-square pixels. Turned by
    quarter turns; a mirror in the metadata is not applied.
    """

    media: Media
    num_frames: int
    max_side_px: int | None
    frames: Frames | None = None

    def __post_init__(self) -> None:
        self._scaler = VideoReformatter()
        self._size = (0, 0)
        self._quarter_turns = 0

    def keep(self, position: int, frame: VideoFrame) -> None:
        """Convert one frame into its place. Raises MediaError TOO_LARGE."""
        if self.frames is None:
            self._start(frame)
        assert self.frames is not None
        width, height = self._size
        flags = FLAGS_NATIVE if (frame.width, frame.height) == self._size else FLAGS_SCALED
        rgb = self._scaler.reformat(frame, width, height, "rgb24", interpolation=flags, threads=1)
        self.frames[position] = np.rot90(rgb.to_ndarray(), self._quarter_turns)

    def _start(self, frame: VideoFrame) -> None:
        check_frame_size(self.media, frame.width, frame.height)
        self._size = width, height = fitted(frame.width, frame.height, max_side_px=self.max_side_px)
        check_memory(self.media, self.num_frames, width, height)
        self._quarter_turns = quarter_turns(frame)
        shape = (width, height) if self._quarter_turns % 2 else (height, width)
        self.frames = np.empty((self.num_frames, *shape, 3), np.uint8)


def quarter_turns(frame: VideoFrame) -> int:
    """Counter-clockwise quarter turns, 0 to 3, that set the frame upright."""
    return round(frame.rotation / 90) % 4


def check_memory(media: Media, num_frames: int, width: int, height: int) -> None:
    """Hold the sampled clip's size in memory against the limit. Raises MediaError TOO_LARGE."""
    num_bytes = num_frames * width * height * 3
    if num_bytes > media.limits.max_clip_bytes:
        limit = media.limits.max_clip_bytes
        what = f"{num_frames} frames of {width}x{height} px take {num_bytes} bytes, the limit is {limit}"
        raise media.fault(MediaFault.TOO_LARGE, what, fix="set max_side_px, or lower max_frames")


def first_frames(media: Media, num: int) -> list[tuple[int, int, int]]:
    """Width, height (px, upright) and counter-clockwise quarter turns of the first ``num`` frames; fewer if no more.

    Raises:
        MediaError: CORRUPT, TIMEOUT.
    """
    found: list[tuple[int, int, int]] = []
    for frame in _decode_all(media):
        turns = quarter_turns(frame)
        size = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
        found.append((*size, turns))
        if len(found) == num:
            break
    return found
