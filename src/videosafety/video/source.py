"""Open a media file safely: an ordinary file only, bounded in bytes, by its own bytes and never by its name.

FFmpeg treats names as instructions (``http:``, ``concat:``, ``img%03d.png``) and some files as lists of other files
(playlists, references). So FFmpeg never sees a name here: it reads an open file object, may use only the demuxers of
real containers, and no protocol at all. A FIFO or a device is refused before it is opened.

Example:
    >>> with open_media("clips/a.mp4", LIMITS) as media, media.container() as container:
    ...     media.video_stream(container).codec_context.width
    640
"""

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from pydantic import Field

from videosafety.core.errors import MediaError, MediaFault
from videosafety.core.records import Record

AnyPath = str | os.PathLike[str]

# Demuxers that read one file and open no other; audio ones are here so that a sound file is told from a broken one.
DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,wav,mp3,flac,aac"
REENCODE = "re-encode it, for example: ffmpeg -i FILE -c:v libx264 -pix_fmt yuv420p NEW.mp4"
BUFFER_BYTES = 256 * 1024


class Limits(Record):
    """What a file may cost. Generous enough for any film; headers are held against them before anything is decoded."""

    max_bytes: int = Field(default=16 * 2**30, ge=1)  # size of the file
    max_side_px: int = Field(default=8192, ge=1)  # width and height: 8K film and common photographs
    max_pixels: int = Field(default=8192 * 8192, ge=1)  # width times height of one frame
    max_frames: int = Field(default=5_000_000, ge=1)  # frames in the file: 24 h at 57 fps
    max_duration_s: float = Field(default=86_400.0, gt=0)  # 24 h
    max_decode_s: float = Field(default=600.0, gt=0)  # wall clock for one file
    max_clip_bytes: int = Field(default=4 * 2**30, ge=1)  # the sampled frames in memory, RGB


LIMITS = Limits()


@dataclass(frozen=True)
class Media:
    """An open media file: its path as given, its bytes, its identity when it was opened, and the time it may take."""

    path: str
    file: BufferedReader
    status: os.stat_result
    limits: Limits
    deadline_s: float  # on the clock of time.monotonic

    def fault(self, fault: MediaFault, what: str, *, fix: str) -> MediaError:
        """The error for this file."""
        return MediaError(what, fault=fault, where=self.path, fix=fix)

    def check_time(self) -> None:
        """Raises MediaError TIMEOUT when the file has taken longer than ``limits.max_decode_s``."""
        if time.monotonic() > self.deadline_s:
            what = f"decoding took longer than {self.limits.max_decode_s:g} s"
            raise self.fault(MediaFault.TIMEOUT, what, fix="shorten the clip or raise the limit max_decode_s")

    def check_unchanged(self) -> None:
        """Raises MediaError CHANGED when the file was written to since it was opened."""
        now = os.fstat(self.file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self.status.st_size, self.status.st_mtime_ns):
            raise self.fault(MediaFault.CHANGED, "the file changed while it was read", fix="run again once it is whole")

    def sha256(self) -> str:
        """SHA-256 of the open file's bytes, 64 hex digits."""
        self.file.seek(0)
        return hashlib.file_digest(self.file, "sha256").hexdigest()

    @contextmanager
    def container(self) -> Iterator[InputContainer]:
        """FFmpeg's view of the file, from its first byte. Raises MediaError CORRUPT for any fault inside the block."""
        self.file.seek(0)
        options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "none", "threads": "1", **self._bounds()}
        try:
            nameless = _Nameless(self.file)
            with av.open(nameless, "r", options=options, metadata_errors="replace", buffer_size=BUFFER_BYTES) as opened:
                yield opened
        except av.FFmpegError as error:
            what = f"is not a readable media file ({_reason(error)})"
            raise self.fault(MediaFault.CORRUPT, what, fix=f"replace it by a whole copy, or {REENCODE}") from error

    def video_stream(self, container: InputContainer) -> VideoStream:
        """The first moving stream (cover art is none), set to one thread and to fail on damage.

        Raises:
            MediaError: NO_VIDEO, or CORRUPT when there is no stream at all or its codec is unknown.
        """
        moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not moving:
            kinds = sorted({s.type for s in container.streams if s.type != "video"})
            if not container.streams:
                raise self.fault(
                    MediaFault.CORRUPT, "its index is damaged or cut off", fix="replace it by a whole copy"
                )
            what = f"has no video stream (only {', '.join(kinds) or 'a cover picture'})"
            raise self.fault(MediaFault.NO_VIDEO, what, fix="give a file with pictures or leave its media out")
        stream = moving[0]
        context: object = stream.codec_context  # None when the codec is unknown, whatever the stubs say
        if context is None:
            raise self.fault(MediaFault.CORRUPT, "its video codec is unknown", fix=REENCODE)
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "crccheck+explode", **self._bounds()}
        return stream

    def _bounds(self) -> dict[str, str]:
        return {"max_pixels": str(self.limits.max_pixels)}


class _Nameless:
    """A file object without a name, so that FFmpeg has only bytes to judge by."""

    name = ""

    def __init__(self, file: BufferedReader) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _reason(error: av.FFmpegError) -> str:
    return (error.strerror or type(error).__name__).rstrip(".").lower()


@contextmanager
def open_media(path: AnyPath, limits: Limits) -> Iterator[Media]:
    """Open an ordinary file of at most ``limits.max_bytes``; the clock of ``limits.max_decode_s`` starts here.

    Raises:
        MediaError: MISSING, EMPTY, TOO_LARGE (bytes) or UNREADABLE (a folder, a FIFO, a device, no permission).
    """
    name = os.fspath(path)
    status = _ordinary(name)
    _check_size(name, status.st_size, limits)
    with _opened(name) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _unreadable(name, "is not an ordinary file")
        _check_size(name, status.st_size, limits)
        yield Media(name, file, status, limits, time.monotonic() + limits.max_decode_s)


def _ordinary(name: str) -> os.stat_result:
    try:
        status = os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        raise MediaError("no such file", fault=MediaFault.MISSING, where=name, fix="check the path") from None
    except ValueError:
        raise _unreadable(repr(name), "is not a file name") from None
    except OSError as error:
        raise _unreadable(name, f"cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        raise _unreadable(name, "is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise _unreadable(name, "is a pipe, a socket or a device")
    return status


def _opened(name: str) -> BufferedReader:
    try:
        return os.fdopen(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise _unreadable(name, f"cannot be read: {error.strerror}") from error


def _unreadable(name: str, what: str) -> MediaError:
    fix = "give the path of an ordinary file that you may read"
    return MediaError(what, fault=MediaFault.UNREADABLE, where=name, fix=fix)


def _check_size(name: str, num_bytes: int, limits: Limits) -> None:
    if num_bytes == 0:
        raise MediaError("is empty (0 bytes)", fault=MediaFault.EMPTY, where=name, fix="copy or download it again")
    if num_bytes > limits.max_bytes:
        what = f"has {num_bytes} bytes, the limit is {limits.max_bytes}"
        raise MediaError(what, fault=MediaFault.TOO_LARGE, where=name, fix="cut it, or raise the limit max_bytes")


def check_frame_size(media: Media, width: int, height: int) -> None:
    """Hold a frame's size, in pixels as a header states it, against the limits. Raises MediaError TOO_LARGE."""
    limits = media.limits
    if max(width, height) > limits.max_side_px or width * height > limits.max_pixels:
        what = f"is {width}x{height} px, the limit is {limits.max_side_px} px a side and {limits.max_pixels} in all"
        raise media.fault(MediaFault.TOO_LARGE, what, fix="scale it down, or raise max_side_px and max_pixels")
