"""When each frame of a file is shown, read from the packets without decoding them, and held against the limits.

A frame's index is its rank in order of presentation; its time is its timestamp minus the first shown frame's. The
packets of H.264, H.265, VP9 and AV1 say exactly this. For other codecs, and where timestamps are missing or repeated,
``decode.decoded_timeline`` counts decoded frames instead.

Example:
    >>> with open_media("clips/a.mp4", LIMITS) as media:
    ...     packets = read_packets(media)
    >>> packets.num_shown, packets.end_s
    (282, 11.75)
"""

from array import array
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from videosafety.core.errors import MediaError, MediaFault
from videosafety.video.source import REENCODE, Media, check_frame_size

NO_PTS = -(2**63)
PACKET_IS_FRAME = frozenset({"h264", "hevc", "vp9", "av1"})  # one shown packet gives exactly one frame
CHECK_EVERY = 256  # packets between two looks at the clock
EBML_HEADER, EBML_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # RFC 8794; RFC 9559 section 5.1


@dataclass(frozen=True)
class Packets:
    """The packets of one video stream in file order (P), and what its header says."""

    codec: str
    pts: NDArray[np.int64]  # (P,) ticks; NO_PTS where missing
    is_key: NDArray[np.bool_]  # (P,)
    is_shown: NDArray[np.bool_]  # (P,) False where an edit list cuts the frame away
    time_base: Fraction  # seconds per tick
    rate: Fraction | None  # frames per second on average
    last_s: float  # how long the last frame is shown

    @property
    def num_shown(self) -> int:
        """Packets that are shown: frames, for a codec of PACKET_IS_FRAME."""
        return int(self.is_shown.sum())

    @property
    def end_s(self) -> float:
        """Seconds from the first shown frame to the end of the last."""
        pts = self.pts[self.is_shown & (self.pts != NO_PTS)]
        span = float((int(pts.max()) - int(pts.min())) * self.time_base) if len(pts) else 0.0
        return span + self.last_s

    @property
    def are_frames(self) -> bool:
        """Whether the timestamps alone say which frames there are and when."""
        pts = self.pts[self.is_shown]
        return self.codec in PACKET_IS_FRAME and bool((pts != NO_PTS).all()) and len(np.unique(pts)) == len(pts)


@dataclass(frozen=True)
class Timeline:
    """Frames in order of presentation (N). ``ticks`` name a frame to the decoder: timestamps, or ranks 0 … N-1."""

    ticks: NDArray[np.int64]  # (N,) strictly increasing
    times_s: NDArray[np.float64]  # (N,) seconds from the first frame, the first is 0
    end_s: float  # end of the last frame


def packet_timeline(packets: Packets) -> Timeline:
    """The timeline that the packets state; only where ``packets.are_frames``."""
    ticks = np.sort(packets.pts[packets.is_shown])
    times_s = (ticks - ticks[0]).astype(np.float64) * packets.time_base.numerator / packets.time_base.denominator
    return Timeline(ticks, times_s, packets.end_s)


def rank_timeline(packets: Packets, num_frames: int) -> Timeline:
    """Frames evenly spaced at the stream's rate: what is left when timestamps are missing, repeated or not exact."""
    rate = float(packets.rate) if packets.rate else num_frames / packets.end_s
    ranks = np.arange(num_frames, dtype=np.int64)
    return Timeline(ranks, ranks / rate, num_frames / rate)


def check_header(media: Media, container: InputContainer, stream: VideoStream) -> None:
    """Hold what the header claims against the limits, before anything of it is believed.

    Raises:
        MediaError: TOO_LARGE, SINGLE_FRAME, or NO_DURATION.
    """
    limits = media.limits
    check_frame_size(media, stream.codec_context.width, stream.codec_context.height)
    if stream.frames > limits.max_frames:
        raise _too_many(media, f"{stream.frames}")
    if stream.frames == 1:
        raise single_frame(media)
    if stream.duration is not None and stream.duration <= 0 and stream.frames > 0:
        raise no_duration(media)
    duration_s = declared_s(container, stream)
    if duration_s is not None:
        _check_duration(media, duration_s)


def declared_s(container: InputContainer, stream: VideoStream) -> float | None:
    """The duration in the header, seconds; None where it does not say."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


class _Walk:
    """What is kept of each packet on the way through the file."""

    def __init__(self) -> None:
        self.pts, self.flags = array("q"), bytearray()
        self.last, self.last_ticks = NO_PTS, 0  # the frame that is shown last, and for how long

    def add(self, packet: "Packet[VideoStream]") -> None:
        """One packet."""
        tick = NO_PTS if packet.pts is None else packet.pts
        self.pts.append(tick)
        self.flags.append(packet.is_keyframe | (not packet.is_discard) << 1)
        if not packet.is_discard and tick >= self.last:
            self.last, self.last_ticks = tick, packet.duration or 0

    def packets(self, stream: VideoStream, time_base: Fraction) -> Packets:
        """All of it."""
        bits = np.frombuffer(self.flags, np.uint8)
        rate = stream.average_rate or stream.guessed_rate
        return Packets(
            codec=stream.codec_context.codec.canonical_name,
            pts=np.array(self.pts, dtype=np.int64),
            is_key=(bits & 1).astype(bool),
            is_shown=(bits & 2).astype(bool),
            time_base=time_base,
            rate=rate,
            last_s=float(self.last_ticks * time_base) or (float(1 / rate) if rate else 0.0),
        )


def read_packets(media: Media) -> Packets:
    """Walk the whole file without decoding. Reads its bytes once; memory: 10 bytes a packet.

    Raises:
        MediaError: what ``check_header`` raises; CORRUPT when the file ends before its header says or a packet is
            damaged; NO_DURATION; TIMEOUT.
    """
    with media.container() as container:
        stream = media.video_stream(container)
        check_header(media, container, stream)
        walk = _Walk()
        for number, packet in enumerate(container.demux(stream)):
            if number % CHECK_EVERY == 0:
                media.check_time()
            if packet.size == 0 and packet.pts is None:
                continue  # the end of a stream, not data
            if packet.is_corrupt:
                raise _cut_short(media, "a packet is damaged or cut off")
            if len(walk.pts) == media.limits.max_frames:
                raise _too_many(media, f"more than {media.limits.max_frames}")
            walk.add(packet)
        packets = walk.packets(stream, stream.time_base or Fraction(1, 1000))
        _check_whole(media, container, stream, packets)
        return packets


def _check_whole(media: Media, container: InputContainer, stream: VideoStream, packets: Packets) -> None:
    """Raise unless the packets are all that the header promised, and last for some time."""
    num, num_bytes = len(packets.pts), media.status.st_size
    end = matroska_end(media) if "matroska" in container.format.name else None
    if end is not None and end > num_bytes:
        raise _cut_short(media, f"has {num_bytes} of the {end} bytes that its header promises")
    if "mp4" in container.format.name and num < stream.frames:
        raise _cut_short(media, f"holds {num} of the {stream.frames} frames that its header promises")
    if packets.num_shown == 0:
        raise _cut_short(media, "holds no frame to show")
    _check_duration(media, packets.end_s)
    if packets.num_shown == 1:
        raise single_frame(media)
    if packets.end_s <= 0:
        raise no_duration(media)


def matroska_end(media: Media) -> int | None:
    """Where a Matroska or WebM file ends by its own header, bytes; None when it does not say (a live recording)."""
    media.file.seek(0)
    head = media.file.read(4096)
    position = 0
    for name in (EBML_HEADER, EBML_SEGMENT):
        if not head.startswith(name, position) or len(head) < position + 12:
            return None
        first = head[position + 4]
        length = 9 - first.bit_length()  # bytes of the size: one more than its leading zero bits
        size = int.from_bytes(head[position + 4 : position + 4 + length], "big") - (1 << 7 * length)
        if length > 8 or size == (1 << 7 * length) - 1:
            return None
        position += 4 + length + (size if name == EBML_HEADER else 0)
    return position + size


def _check_duration(media: Media, duration_s: float) -> None:
    limit_s = media.limits.max_duration_s
    if duration_s > limit_s:
        what = f"lasts {duration_s:.0f} s, the limit is {limit_s:.0f} s"
        raise media.fault(MediaFault.TOO_LARGE, what, fix="cut it, or raise the limit max_duration_s")


def _too_many(media: Media, count: str) -> MediaError:
    what = f"claims {count} frames, the limit is {media.limits.max_frames}"
    return media.fault(MediaFault.TOO_LARGE, what, fix="cut it, or raise the limit max_frames")


def _cut_short(media: Media, what: str) -> MediaError:
    return media.fault(MediaFault.CORRUPT, what, fix=f"replace it by a whole copy, or {REENCODE}")


def no_duration(media: Media) -> MediaError:
    """The error for a clip that lasts no time."""
    return media.fault(MediaFault.NO_DURATION, "lasts 0 seconds", fix=f"cut it again, or {REENCODE}")


def single_frame(media: Media) -> MediaError:
    """The error for a clip of one frame, or a still image given as a clip."""
    fix = 'list it as an image ("kind": "image"); save the frame as PNG if it is in a video file'
    return media.fault(MediaFault.SINGLE_FRAME, "has a single frame: an image, not a video", fix=fix)
