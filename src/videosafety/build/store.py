"""Media addressed by content: ``media/ab/abcd….mp4``. A file that is there is whole; one that somebody changed is not
taken for it, and is written again.

Example:
    >>> store = MediaStore(out / "media")
    >>> store.put(Path("clips/a.mp4"), sha256=clip.sha256)                                   # doctest: +SKIP
    PosixPath('runs/build/media/4f/4f1c….mp4')
"""

import os
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from videosafety.core.errors import InputError
from videosafety.core.store import sha256_file, storage_errors

MEDIA = "media"  # the folder of clips in a folder of a build
MEDIA_SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".mov", ".avi", ".gif", ".jpg", ".jpeg", ".png", ".webp"})
SUFFIX = re.compile(r"\.[a-z0-9]{1,5}$")


@dataclass(frozen=True)
class MediaStore:
    """A folder of media. Files are copies, or with ``links`` hard links where the disk allows it.

    A hard link takes no room, and is the file itself: who writes over the clip in place writes over both.
    """

    root: Path
    links: bool = False

    def path(self, sha256: str, *, suffix: str = "") -> Path:
        """Where the file of this hash lies, whether it is there or not."""
        return self.root / sha256[:2] / f"{sha256}{suffix}"

    def put(self, file: Path, *, sha256: str) -> Path:
        """Bring a file in; nothing is done where it is there. Raises StorageError; ValueError: it has another hash."""
        found = SUFFIX.search(file.name.lower())
        target = self.path(sha256, suffix=found.group() if found else "")
        if target.is_file() and sha256_file(target) == sha256:
            return target
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f"{target.name}.{os.getpid()}.part")
            with suppress(FileNotFoundError):
                part.unlink()
            try:
                if self.links:
                    os.link(file, part)
            except OSError:  # another disk, or one without links
                part.unlink(missing_ok=True)
            if not part.exists():
                shutil.copyfile(file, part)
            if sha256_file(part) != sha256:
                part.unlink()
                raise ValueError(f"{file.name} has changed since it was collected")
            os.replace(part, target)
        return target


def link_media(paths: Collection[str], *, source: Path, target: Path) -> None:
    """Link these files (paths below ``source``) into ``target`` under the same paths, where they are not there.

    Raises:
        StorageError: the disk refuses.
        InputError: some of them are gone.
    """
    with storage_errors(target):
        for folder in {Path(path).parent for path in paths}:
            (target / folder).mkdir(parents=True, exist_ok=True)
        gone = sorted(path for path in paths if not (source / path).is_file())
        if gone:
            raise InputError(f"{len(gone)} clips of the build are gone, such as {gone[0]}", where=str(source),
                             fix="bring them back, or build in another folder")  # fmt: skip
        for path in paths:
            if not (target / path).exists():
                try:
                    os.link(source / path, target / path)
                except OSError:  # a disk without links
                    shutil.copyfile(source / path, target / path)


def unlink_others(paths: Collection[str], *, target: Path) -> None:
    """Take away the media in ``target`` that are none of these. Raises StorageError: the disk refuses."""
    with storage_errors(target):
        tops = {Path(path).parts[0] for path in paths} | {MEDIA}
        for file in (one for top in tops for one in (target / top).rglob("*") if one.is_file()):
            if file.relative_to(target).as_posix() not in paths:
                file.unlink()
