"""The last look at a release before it goes out: nothing harmful outside of ``restricted/``, in any format.

It looks into text of all kinds, Parquet, tar shards and media, for the words of harmful requests, for what was answered
to them, and for harmful clips. A file that cannot be looked into is a fault, too.

Example:
    >>> list(release_faults(Path("runs/build/release"), words=words, clips=harmful))         # doctest: +SKIP
    []
"""

import csv
import hashlib
import json
import tarfile
from collections.abc import Container, Iterator
from pathlib import Path
from typing import IO, Any

from videosafety.build.release.config import RESTRICTED
from videosafety.build.release.parquet import arrow
from videosafety.build.release.rows import Words
from videosafety.build.store import MEDIA, MEDIA_SUFFIXES
from videosafety.core.errors import InputError
from videosafety.core.store import sha256_file

MAX_NAMED = 5  # files that the error names
TEXT_SUFFIXES = frozenset({".json", ".jsonl", ".csv", ".md", ".txt", ".yaml", ".yml", ".html"})
KNOWN_SUFFIXES = TEXT_SUFFIXES | {".parquet", ".tar"}


def enforce_release(release: Path, *, words: Words, clips: Container[str]) -> None:
    """Raises InputError: something harmful stands outside of ``restricted/``; it names the first files."""
    if faults := list(release_faults(release, words=words, clips=clips)):
        more = f" and {len(faults) - MAX_NAMED} more" if len(faults) > MAX_NAMED else ""
        raise InputError(f"the release is not published: {'; '.join(faults[:MAX_NAMED])}{more}",
                         fix="this is a fault of the program: report it")  # fmt: skip


def release_faults(release: Path, *, words: Words, clips: Container[str]) -> Iterator[str]:
    """Files outside of ``restricted/`` with harmful words or a harmful clip, or that cannot be looked into.

    Args:
        release: the folder.
        words: those of all rows, also of rows that do not go out.
        clips: SHA-256 of all harmful clips.
    """
    for path in sorted(one for one in release.rglob("*") if one.is_file()):
        name, suffix = path.relative_to(release), path.suffix.lower()
        if name.parts[0] == RESTRICTED:
            continue
        if name.parts[0] == MEDIA or suffix in MEDIA_SUFFIXES:
            if sha256_file(path) in clips:
                yield f"{name.as_posix()} is a harmful clip"
        elif suffix not in KNOWN_SUFFIXES:
            yield f"{name.as_posix()} is of no kind that can be looked into"
        elif any(text in words for text in _texts(path)):
            yield f"{name.as_posix()} holds harmful words"
        elif suffix == ".tar" and any(sha256 in clips for sha256 in _media(path)):
            yield f"{name.as_posix()} holds a harmful clip"


def _texts(path: Path) -> Iterator[str]:
    """All texts of a file: the strings of JSON, the cells of a table, the lines of what else there is."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        _, parquet = arrow()
        for batch in parquet.ParquetFile(path).iter_batches():
            yield from _strings(batch.to_pylist())
    elif suffix == ".tar":
        for name, member in _members(path):
            if name.endswith(".json"):
                yield from _parsed(member.read().decode(errors="replace"))
    else:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            if suffix == ".json":
                yield from _parsed(file.read())
            elif suffix == ".csv":
                yield from _strings(list(csv.reader(file)))
            else:
                for line in file:
                    yield from _parsed(line)


def _parsed(text: str) -> Iterator[str]:
    """All texts of a JSON value; text that is none is one itself."""
    try:
        yield from _strings(json.loads(text))
    except ValueError:
        yield text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        if value[:1] in ("{", "["):  # an object in JSON inside of a cell
            yield from _parsed(value)
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


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
