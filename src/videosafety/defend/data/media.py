"""The media of training rows: which paths are allowed, where they lead, and whether the files can be used.

Relative paths start from the folder that the source names, or the file's own, and may not leave it by ``..``. Every
distinct file is looked at once.

Example:
    >>> path_fault("../a.mp4")
    "a media path leaves its folder by '..'; give it relative to that folder, or absolute"
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from videosafety.core.errors import InputError, MediaError
from videosafety.core.example import Example
from videosafety.core.records import Image, Video
from videosafety.video.probe import probe

Media: TypeAlias = Video | Image

MAX_PATH_CHARS = 4096
MAX_NAME_BYTES = 255  # of one part of a path, on common file systems
PROBES_AT_ONCE = min(8, 2 * (os.cpu_count() or 1))


def path_fault(path: str) -> str | None:
    """What is wrong with a media path as such, whether or not the file exists; None where nothing is."""
    if "://" in path or path.startswith("data:"):
        return "a media path is a URL; download the file and give its path"
    if any(ord(char) < 32 or ord(char) == 127 for char in path):
        return "a media path holds a control character; give the path of a file"
    parts = PurePosixPath(path).parts
    if ".." in parts:
        return "a media path leaves its folder by '..'; give it relative to that folder, or absolute"
    try:
        longest = max((len(part.encode()) for part in parts), default=0)
    except UnicodeEncodeError:
        return "a media path holds half a character; give the path of a file"
    if len(path) > MAX_PATH_CHARS or longest > MAX_NAME_BYTES:
        return f"a media path is too long ({len(path)} characters)"
    return None


def placed(example: Example, folder: Path) -> Example:
    """The example with absolute media paths; relative ones start from ``folder``.

    Raises:
        ValueError: a path is not allowed, see ``path_fault``.
    """
    if not example.media:
        return example
    for one in example.media:
        for path in (one.path, str(folder / one.path)):
            if fault := path_fault(path):
                raise ValueError(fault)
    turns = tuple(
        turn.model_copy(update={"media": tuple(one.model_copy(update={"path": str(folder / one.path)})
                                               for one in turn.media)})
        for turn in example.turns
    )  # fmt: skip
    return example.model_copy(update={"turns": turns})


def media_faults(media: Iterable[Media], *, folder: Path) -> dict[Media, str]:
    """What is wrong with each medium that cannot be used: missing, undecodable, of another kind, or changed."""
    distinct = list(dict.fromkeys(media))
    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        try:
            faults = list(pool.map(lambda one: _fault(one, folder), distinct))
        finally:
            pool.shutdown(cancel_futures=True)
    return {one: fault for one, fault in zip(distinct, faults, strict=True) if fault is not None}


def _fault(media: Media, folder: Path) -> str | None:
    path = folder / media.path
    try:
        info = probe(path, with_sha256=media.sha256 is not None)
    except MediaError as error:
        return f"its {media.kind} {_short(media.path)} cannot be used ({error.fault.value}): {InputError(error.what)}"
    if info.sha256 != media.sha256:
        return f"its {media.kind} {_short(media.path)} is not the declared file, its SHA-256 differs"
    if info.kind != media.kind:
        return f"{_short(media.path)} is listed as {_a(media.kind)} but is {_a(info.kind)}"
    return None


def _a(kind: str) -> str:
    return f"an {kind}" if kind == "image" else f"a {kind}"


def _short(path: str) -> str:
    """A path in an error: its end, which tells files apart."""
    return repr(path if len(path) <= 120 else f"…{path[-119:]}")
