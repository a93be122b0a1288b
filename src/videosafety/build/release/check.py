"""The last look at a release before it goes out: nothing harmful outside of ``restricted/``, in any format.

The gate ``restricted`` of the data set looks into text files and at media files. This looks into Parquet and into tar
shards as well, and also for what was answered to harmful requests.

Example:
    >>> list(release_faults(mixed, Path("runs/build/release")))                              # doctest: +SKIP
    []
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from videosafety.build.gates import TEXT_SUFFIXES, restricted_faults
from videosafety.build.records import Mixed
from videosafety.build.release.config import RESTRICTED
from videosafety.build.release.parquet import arrow
from videosafety.build.release.rows import row_of, words_of
from videosafety.build.store import MEDIA_SUFFIXES
from videosafety.core.errors import InputError
from videosafety.core.labels import Safety
from videosafety.core.store import sha256_file

KNOWN_SUFFIXES = TEXT_SUFFIXES | MEDIA_SUFFIXES | {".parquet", ".tar"}


def enforce_release(rows: Sequence[Mixed], release: Path) -> None:
    """Raises InputError: something harmful stands outside of ``restricted/``; it names up to five files."""
    if faults := list(release_faults(rows, release)):
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise InputError(f"the release is not published: {'; '.join(faults[:5])}{more}",
                         fix="this is a fault of the program: report it")  # fmt: skip


def release_faults(rows: Sequence[Mixed], release: Path) -> Iterator[str]:
    """Files outside of ``restricted/`` with harmful words or a harmful clip, or that cannot be looked into."""
    words = words_of(row_of(row) for row in rows)
    clips = frozenset(row.asked.described.clip.sha256 for row in rows
                      if row.asked.described.visual is Safety.HARMFUL)  # fmt: skip
    yield from restricted_faults(rows, release, inside=RESTRICTED)
    for path in sorted(one for one in release.rglob("*") if one.is_file()):
        name = path.relative_to(release)
        if name.parts[0] == RESTRICTED:
            continue
        if name.parts[0] == "media":
            if sha256_file(path) in clips:
                yield f"{name.as_posix()} is a harmful clip"
        elif path.suffix.lower() not in KNOWN_SUFFIXES:
            yield f"{name.as_posix()} is of no kind that can be looked into"
        elif any(text in words for text in _texts(path)):
            yield f"{name.as_posix()} holds harmful words"
        elif path.suffix == ".tar" and any(sha256 in clips for sha256 in _media(path)):
            yield f"{name.as_posix()} holds a harmful clip"


def _texts(path: Path) -> Iterator[str]:
    """All texts of a file of ours."""
    if path.suffix == ".parquet":
        _, parquet = arrow()
        for batch in parquet.ParquetFile(path).iter_batches():
            yield from _strings(batch.to_pylist())
    elif path.suffix == ".tar":
        for name, file in _members(path):
            if name.endswith(".json"):
                yield from _strings(json.load(file))
    elif path.suffix == ".json":
        yield from _strings(json.loads(path.read_bytes()))
    elif path.suffix == ".jsonl":
        with path.open("rb") as lines:
            for line in lines:
                yield from _strings(json.loads(line))


def _media(path: Path) -> Iterator[str]:
    for name, file in _members(path):
        if not name.endswith(".json"):
            yield hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(path, "r:") as shard:
        for member in shard:
            file = shard.extractfile(member)
            if file is not None:
                yield member.name, file


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        if value[:1] in ("{", "["):  # an object in JSON inside of a cell
            yield from _inner(value)
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def _inner(text: str) -> Iterator[str]:
    try:
        yield from _strings(json.loads(text))
    except json.JSONDecodeError:
        return
