"""collect: every file of a folder, or every row of a manifest, as a clip with its hash. Nothing is opened as media.

A folder is read in the order of its paths, so equal folders give equal rows. A file with the bytes of an earlier one is
an exact duplicate and ends here; so does what is hidden, a link that leads out of the folder or to another one, and a
file that cannot be read. Nothing is fetched: clips of a site are files that the user's own tool has brought, with what
is known of them in a manifest.

A manifest is JSON lines: ``{"path": "a.mp4", "source": "…", "licence": "…", "language": "en", "sha256": "…"}``; all but
``path`` may be left out.

Example:
    >>> found = list(collect(Path("clips"), source="ours", licence="CC-BY-4.0"))             # doctest: +SKIP
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from pydantic import Field, ValidationError

from videosafety.build.ledger import Ledger, Outcome
from videosafety.build.records import Clip
from videosafety.build.state import State
from videosafety.build.store import MEDIA_SUFFIXES
from videosafety.core.errors import InputError, RecordError
from videosafety.core.jsonl import canonical_json, read_records
from videosafety.core.records import Language, Record
from videosafety.core.store import sha256_file

STEP = "collect"
FILES_AT_ONCE = 256
MAX_SHOWN = 1000  # characters of a name that is no text
OnRow = Callable[[int, int], None]


class Named(Record):
    """A row of a manifest of clips."""

    path: str = Field(min_length=1, max_length=4096)
    source: str | None = Field(default=None, max_length=500)
    licence: str | None = Field(default=None, max_length=500)
    language: Language | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class Ended(Named):
    """A file or folder that is not looked into, with its end; ``path`` is what can be shown of its name."""

    state: State
    reason: str


def named(clips: Path) -> tuple[Path, list[Named]]:
    """The folder and the files that are meant: all of a folder, or those of a manifest.

    Hidden files and folders, and links to folders, are rows that end here: what is not looked into is said.

    Raises:
        InputError: there is no such folder or manifest, or nothing in it.
    """
    if clips.is_dir():
        root, rows = clips, sorted(_walked(clips), key=lambda row: row.path)
    elif clips.is_file() and clips.suffix.lower() in MEDIA_SUFFIXES:
        raise InputError("is a clip", where=str(clips), fix="give the folder that it lies in, or a manifest of clips")
    elif clips.is_file():
        root, rows = clips.parent, read_records(clips, Named, unique="path")
    else:
        raise InputError("no such folder or manifest of clips", where=str(clips), fix="give one with --clips")
    if not rows:
        raise InputError("holds no files", where=str(clips), fix="give a folder of clips with --clips")
    return root, rows


def _walked(root: Path) -> Iterator[Named]:
    for folder, folders, files in os.walk(root):
        own = Path(folder).relative_to(root)
        for name in list(folders):
            linked = (Path(folder) / name).is_symlink()
            if name.startswith(".") or linked:
                folders.remove(name)
                reason = "path:linked_folder" if linked else "path:hidden"
                yield _named((own / name).as_posix(), end=(State.FILTERED, reason))
        for name in files:
            hidden = (State.FILTERED, "path:hidden") if name.startswith(".") else None
            yield _named((own / name).as_posix(), end=hidden)


def _named(path: str, *, end: tuple[State, str] | None) -> Named:
    """A row of a folder; bytes that are no UTF-8, or a path of more than 4,096 characters, end it."""
    try:
        return Ended(path=path, state=end[0], reason=end[1]) if end else Named(path=path)
    except ValidationError:
        shown = os.fsencode(path).decode(errors="backslashreplace")[:MAX_SHOWN]
        return Ended(path=shown, state=State.QUARANTINED, reason="path:not_text")


def collect(
    clips: Path,
    ledger: Ledger | None = None,
    *,
    source: str = "",
    licence: str | None = None,
    workers: int = 1,
    on_row: OnRow = lambda done, total: None,
) -> Iterator[Outcome]:
    """What becomes of every file, in order: a ``Clip``, or why there is none.

    Args:
        clips: a folder or a manifest.
        ledger: where the hashes of files are kept that have not changed since, by size and time; None: all are read.
        source: of files that name none.
        licence: of files that name none.
        workers: files that are read at a time.
        on_row: told of progress, (done, total).

    Raises:
        InputError: as ``named``.
    """
    root, rows = named(clips)
    inside = root.resolve()
    first: dict[str, str] = {}  # sha256 -> path of the first file with these bytes
    with ThreadPoolExecutor(workers, thread_name_prefix="hash") as pool:
        for start in range(0, len(rows), FILES_AT_ONCE):
            some = rows[start : start + FILES_AT_ONCE]
            for row, looked in zip(some, _looked_at(inside, some, ledger, pool), strict=True):
                key = hashlib.sha256(canonical_json(row.model_dump(mode="json"))).hexdigest()
                yield _outcome(row, looked, key, first, source=source, licence=licence)
            on_row(start + len(some), len(rows))


@dataclass
class _Looked:
    """A file: its bytes and its hash, or the end that it comes to."""

    num_bytes: int = 0
    mtime_ns: int = 0
    sha256: str | None = None
    ended: tuple[State, str] | None = None


def _looked_at(root: Path, rows: Sequence[Named], ledger: Ledger | None, pool: Executor) -> list[_Looked]:
    """All files, hashed where the ledger does not know them as they are."""
    looked = [_stat(root, row) for row in rows]
    for row, one in zip(rows, looked, strict=True):
        if ledger is not None and one.ended is None:
            one.sha256 = ledger.hash_of(row.path, num_bytes=one.num_bytes, mtime_ns=one.mtime_ns)
    new = [(row, one) for row, one in zip(rows, looked, strict=True) if one.ended is None and one.sha256 is None]
    for (_, one), sha256 in zip(new, pool.map(_hash, (root / row.path for row, _ in new)), strict=True):
        one.sha256, one.ended = sha256, None if sha256 else (State.FAILED, "media:unreadable")
    if ledger is not None:
        ledger.keep_hashes((row.path, one.num_bytes, one.mtime_ns, one.sha256) for row, one in new if one.sha256)
    return looked


def _stat(root: Path, row: Named) -> _Looked:
    if isinstance(row, Ended):
        return _Looked(ended=(row.state, row.reason))
    path = root / row.path
    try:
        if not path.resolve().is_relative_to(root):
            return _Looked(ended=(State.QUARANTINED, "path:outside"))
        stat = path.stat()
    except FileNotFoundError:
        return _Looked(ended=(State.FAILED, "media:missing"))
    except (OSError, RuntimeError, ValueError):  # a link that leads to itself, a NUL in a manifest's path
        return _Looked(ended=(State.FAILED, "media:unreadable"))
    if not S_ISREG(stat.st_mode):
        return _Looked(ended=(State.QUARANTINED, "media:unreadable"))
    if stat.st_size == 0:
        return _Looked(ended=(State.QUARANTINED, "media:empty"))
    return _Looked(stat.st_size, stat.st_mtime_ns)


def _hash(path: Path) -> str | None:
    try:
        return sha256_file(path)
    except (OSError, RecordError):
        return None


def _outcome(
    row: Named, looked: _Looked, key: str, first: dict[str, str], *, source: str, licence: str | None
) -> Outcome:
    sha256, ended = looked.sha256, looked.ended
    if ended is None and row.sha256 not in (None, sha256):
        ended = State.QUARANTINED, "media:changed"
    if ended is None and sha256 in first:
        ended = State.FILTERED, "duplicate:exact"
    if ended is not None or sha256 is None:
        state, reason = ended or (State.FAILED, "media:unreadable")
        return Outcome(STEP, key, row.path, None, state, reason)
    first[sha256] = row.path
    clip = Clip(id=f"clip-{sha256[:16]}", path=row.path, sha256=sha256, num_bytes=looked.num_bytes,
                source=row.source or source, licence=row.licence or licence, language=row.language)  # fmt: skip
    made = canonical_json(clip.model_dump(mode="json")).decode()
    return Outcome(STEP, key, row.path, None, State.OK, made=(made,))
