"""screen: files on a list of known hashes are quarantined before anything of them is shown to a person or a model.

Directly after ``collect`` by SHA-256 (``Quarantine``: the file is not even opened), and after ``embed`` by perceptual
hash (``QuarantineLooks``: re-encoded or mirrored copies; one frame that matches is enough). A quarantined clip has no
preview anywhere, and neither its row nor an error says what is on the list. The list is a text file:

    # comment
    4f1c…                                  64 hex digits: SHA-256 of a file
    phash:00f3a2b1c4d5e697                 16 hex digits: hash of a frame, as ``embed`` makes it

Example:
    >>> Quarantine.of(Path("known.txt"))(clip)                                               # doctest: +SKIP
    Terminal(state=<State.QUARANTINED: 'quarantined'>, reason='hash_list:sha256')
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from videosafety.build.embed import NUM_BITS
from videosafety.build.records import Clip, Embedded
from videosafety.build.state import State, Terminal
from videosafety.core.errors import InputError
from videosafety.core.jsonl import opened
from videosafety.core.store import sha256_file

WITHIN_BITS = 6  # of the 63 bits of a frame's hash, by which a copy may differ
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PHASH = re.compile(r"phash:([0-9a-f]{16})")


class Listed(NamedTuple):
    """A list of hashes: of files, and of frames."""

    sha256: frozenset[str]
    frames: NDArray[np.uint64]


@dataclass(frozen=True)
class Quarantine:
    """The step after ``collect``. ``list_sha256`` is the hash of the list itself: a new list is a new step."""

    list_sha256: str
    path: str = field(compare=False)
    name: ClassVar[str] = "screen"
    version: ClassVar[int] = 1
    opens_media: ClassVar[bool] = False
    makes: ClassVar[type[Clip]] = Clip

    @classmethod
    def of(cls, path: Path) -> Self:
        """The step for a list. Raises RecordError, InputError: it cannot be read, or a line is no hash."""
        read_list(path)
        return cls(list_sha256=sha256_file(path), path=str(path))

    def __call__(self, clip: Clip) -> Sequence[Clip] | Terminal:
        """The clip as it came, unless its hash is listed."""
        if clip.sha256 in _listed(self.path, self.list_sha256).sha256:
            return Terminal(state=State.QUARANTINED, reason="hash_list:sha256")
        return [clip]


@dataclass(frozen=True)
class QuarantineLooks:
    """The step after ``embed``; ``within`` is in bits."""

    list_sha256: str
    path: str = field(compare=False)
    within: int = WITHIN_BITS
    name: ClassVar[str] = "screen_looks"
    version: ClassVar[int] = 1
    opens_media: ClassVar[bool] = False
    makes: ClassVar[type[Embedded]] = Embedded

    @classmethod
    def of(cls, path: Path, *, within: int = WITHIN_BITS) -> Self:
        """The step for a list. Raises RecordError, InputError: it cannot be read, or a line is no hash."""
        read_list(path)
        return cls(list_sha256=sha256_file(path), path=str(path), within=within)

    def __call__(self, clip: Embedded) -> Sequence[Embedded] | Terminal:
        """The clip as it came, unless a frame or its mirror image looks like a listed one.

        Raises:
            InputError: frames are listed and the clip was embedded by something else than ``phash``.
        """
        listed = _listed(self.path, self.list_sha256).frames
        if not listed.size:
            return [clip]
        if clip.embedder != "phash":
            raise InputError(f"perceptual hashes cannot be compared with {clip.embedder}", where=clip.id,
                             fix="embed with phash, or list files by SHA-256 alone")  # fmt: skip
        own = np.array([int(half, 16) for one in clip.vectors for half in (one[:16], one[16:])], dtype=np.uint64)
        if any(int(np.bitwise_count(listed ^ frame).min()) <= self.within for frame in own if frame):
            return Terminal(state=State.QUARANTINED, reason="hash_list:looks")
        return [clip]


def read_list(path: Path) -> Listed:
    """A list of hashes.

    Raises:
        RecordError: there is no such file.
        InputError: a line is no hash (it is named by its number), or there is none.
    """
    files: set[str] = set()
    frames: set[int] = set()
    for number, line in _lines(path):
        if _SHA256.fullmatch(line):
            files.add(line)
        elif found := _PHASH.fullmatch(line):
            frames.add(int(found.group(1), 16))
        else:
            raise InputError("is no hash", where=f"{path}:{number}", fix="give 64 hex digits, or phash: and 16")
    if not files and not frames:
        raise InputError("lists no hash", where=str(path), fix="give another file, or leave hash_list empty")
    if stray := [one for one in frames if one == 0 or one >> NUM_BITS]:
        raise InputError(f"{len(stray)} perceptual hashes are no frame's", where=str(path), fix="leave them out")
    return Listed(frozenset(files), np.array(sorted(frames), dtype=np.uint64))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with opened(path) as file:
        for number, raw in enumerate(file, start=1):
            line = raw.decode("utf-8", errors="replace").partition("#")[0].strip().lower()
            if line:
                yield number, line


@lru_cache(maxsize=4)
def _listed(path: str, list_sha256: str) -> Listed:
    """The list, once a process. Raises InputError: it is not the one that the step was made for."""
    if sha256_file(path) != list_sha256:
        raise InputError("the list of hashes has changed", where=path, fix="run the build again")
    return read_list(Path(path))
