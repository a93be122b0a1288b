"""WebDataset shards of a release: ``shards/sft-000000.tar``. A sample is a clip with all that is asked about it.

Its key is the clip's hash; ``KEY.json`` holds the clip and its rows, ``KEY.mp4`` (or what it is) the file itself where
media go out. One clip has several queries, so a sample of one query would hold every file many times. Members follow
the hash and their headers are fixed: equal rows give equal bytes. Read by ``webdataset.WebDataset`` and by any tar.

Example:
    >>> for sample in webdataset.WebDataset("restricted/shards/sft-000000.tar").decode():    # doctest: +SKIP
    ...     sample["json"]["rows"][0]["query"]
"""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videosafety.build.release.rows import ClipRow, Row
from videosafety.core.jsonl import canonical_json

MB = 10**6


class Shards:
    """The shards of a split; they are there once a sample was added, and whole after ``close``."""

    def __init__(self, folder: Path, split: str, *, limit: int) -> None:
        self._folder, self._split, self._limit = folder, split, limit
        self._number = 0
        self._shard: tarfile.TarFile | None = None

    def add(self, clip: ClipRow, rows: Sequence[Row], file: Path | None) -> None:
        """Write a sample; ``file`` is the clip itself, where it goes out. A shard over the limit (bytes) is closed."""
        if self._shard is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{self._split}-{self._number:06d}.tar"
            self._shard = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        _add(self._shard, clip, rows, file)
        if self._shard.offset > self._limit:
            self.close()

    def close(self) -> None:
        """End the shard that is open."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None
            self._number += 1


def _add(shard: tarfile.TarFile, clip: ClipRow, rows: Sequence[Row], path: Path | None) -> None:
    said: dict[str, Any] = {"clip": clip.model_dump(mode="json"), "rows": [row.model_dump(mode="json") for row in rows]}
    text = canonical_json(said)
    shard.addfile(_member(f"{clip.sha256}.json", len(text)), io.BytesIO(text))
    if path is not None:
        with path.open("rb") as file:
            shard.addfile(_member(f"{clip.sha256}{path.suffix.lower()}", path.stat().st_size), file)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member
