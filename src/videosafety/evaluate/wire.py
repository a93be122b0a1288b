"""How a clip or a picture travels in a chat request: content parts of OpenAI's protocol, bounded in size.

A clip is decoded, sampled and edited here, so that every arm goes the same way and its frame plan is what was sent:

    mp4      one ``video_url`` part: the frames encoded anew, at their mean rate
    frames   ``<1.0 s>`` and an ``image_url`` part for each frame: for servers that take images only
    file     one ``video_url`` part: the file as it is; the server takes frames as it likes, so there is no frame
             plan. Where an arm changes what the file shows, as ``mp4``

A ``video_url`` holds the bytes (``by="data"``) or, for a server on this machine, a path (``by="path"``) or a ``file:``
address (``by="file_url"``). A picture is an ``image_url`` in every case, never a clip of one frame; a clip of which one
frame is left goes as that frame with its time. Frames and pictures are PNG and so exact; JPEG (quality 95, full colour)
is smaller. The mean error of an mp4 is about 1 of 255.

Example:
    >>> parts, plan = Wire(video="frames").parts(shows)                         # doctest: +SKIP
    >>> [part["type"] for part in parts]                                        # doctest: +SKIP
    ['text', 'image_url', 'text', 'image_url', ...]
"""

import hashlib
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args, get_origin

from videosafety.core.errors import InputError, MediaFault
from videosafety.core.store import write_bytes
from videosafety.evaluate.asking import VIDEO_FORMATS
from videosafety.evaluate.showing import Shows, shown
from videosafety.video.parts import Part, data_uri, picture_parts
from videosafety.video.plan import Clip, FramePlan, Frames, Picture
from videosafety.video.source import LIMITS, open_media
from videosafety.video.write import write_mp4

MIB = 2**20
MP4_CRF = 4
FIX = "lower max_frames or max_side_px, or raise this limit with -M if the server takes more"


class TooMuch(InputError):
    """The media of one item are over a limit of the request."""


@dataclass(frozen=True)
class Wire:
    """How media travel, and the most of them that one request may hold."""

    video: Literal["mp4", "frames", "file"] = "mp4"
    by: Literal["data", "path", "file_url"] = "data"
    picture: Literal["png", "jpeg"] = "png"
    max_mib: float = 32.0  # of media, before base64 makes them a third larger
    most_frames: int = 256  # of one clip, where they are sent by us
    most_side_px: int = 4096

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if get_origin(field.type) is Literal and value not in get_args(field.type):
                raise InputError(f"{field.name} is {value!r}", fix=f"use one of {', '.join(get_args(field.type))}")
            if field.name.startswith("m") and not (isinstance(value, int | float) and value > 0):
                raise InputError(f"{field.name} is {value!r}", fix="give a number above 0")

    def told(self) -> dict[str, object]:
        """What decides what the server is shown, for records and for the identity of an evaluation."""
        return {"video": self.video, "picture": self.picture}

    def parts(self, shows: Shows, scratch: Path) -> tuple[list[Part], FramePlan | None]:
        """The content parts of one clip or picture, and its frame plan; ``scratch`` holds files that go by path.

        Raises:
            MediaError: the file cannot be used.
            TooMuch: it is over a limit; says which.
        """
        if self.video == "file" and shows.kind == "video" and not shows.remade:
            return [self._original(shows)], None
        media = shown(shows)
        if isinstance(media, Picture):
            return self._pictures(media.pixels[None], None), media.plan
        if self.video == "frames" or len(media.frames) == 1:
            return self._pictures(media.frames, media.timestamps_s), media.plan
        return [self._encoded(media, scratch)], media.plan

    def _original(self, shows: Shows) -> Part:
        _, mime = VIDEO_FORMATS.get(Path(shows.path).suffix.lower(), ("mp4", "video/mp4"))
        with open_media(shows.path, LIMITS) as media:
            self._bound(num_bytes=media.status.st_size)
            data = media.file.read()
            if shows.sha256 is not None and hashlib.sha256(data).hexdigest() != shows.sha256:
                fix = "restore the file, or write its new sha256 into the record"
                raise media.fault(MediaFault.CHANGED, "has another hash than its record declares", fix=fix)
        return self._video_url(data, mime, Path(shows.path))

    def _encoded(self, clip: Clip, scratch: Path) -> Part:
        self._bound(frames=clip.frames)
        length_s = clip.timestamps_s[-1] - clip.timestamps_s[0]
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            path = Path(folder) / "clip.mp4"
            write_mp4(path, clip.frames, fps=min(240.0, (len(clip.frames) - 1) / length_s), crf=MP4_CRF)
            data = path.read_bytes()
        self._bound(num_bytes=len(data))
        kept = scratch / f"{hashlib.sha256(data).hexdigest()[:32]}.mp4"
        if self.by != "data" and not kept.exists():
            write_bytes(kept, data)
        return self._video_url(data, "video/mp4", kept)

    def _video_url(self, data: bytes, mime: str, path: Path) -> Part:
        url = {"data": lambda: data_uri(data, mime), "path": path.as_posix, "file_url": path.as_uri}[self.by]()
        return {"type": "video_url", "video_url": {"url": url}}

    def _pictures(self, frames: Frames, times_s: tuple[float, ...] | None) -> list[Part]:
        """Each frame as an image, after its time where it has one."""
        self._bound(frames=frames)
        return picture_parts(frames, times_s, kind=self.picture, on_bytes=lambda total: self._bound(num_bytes=total))

    def _bound(self, *, frames: Frames | None = None, num_bytes: int = 0) -> None:
        """Raises TooMuch: names the limit, what was found and what to lower."""
        if num_bytes > self.max_mib * MIB:
            at_most = f"the media of a request have at most {self.max_mib:g} MiB (max_mib), these have more"
            raise TooMuch(at_most, fix=FIX if self.picture == "jpeg" else f"{FIX}, or send picture=jpeg")
        if frames is None:
            return
        if len(frames) > self.most_frames:
            raise TooMuch(f"{len(frames)} frames are more than most_frames = {self.most_frames}", fix=FIX)
        if max(frames.shape[1:3]) > self.most_side_px:
            side = max(frames.shape[1:3])
            raise TooMuch(f"a frame has a side of {side} px, more than most_side_px = {self.most_side_px}", fix=FIX)
