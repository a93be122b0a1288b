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
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from videosafety.build.publish_parquet import SPLITS
from videosafety.build.publish_rows import ClipRow, Row
from videosafety.core.jsonl import canonical_json
from videosafety.core.store import storage_errors

MB = 10**6


def write_shards(
    folder: Path, rows: Sequence[Row], clips: Sequence[ClipRow], *, media: Mapping[str, Path], shard_mb: int
) -> list[Path]:
    """Write ``shards/`` with the rows that show all of their words.

    Args:
        folder: of the release, or its restricted folder.
        rows, clips: of this folder.
        media: the file of a clip by hash; a clip without one goes without.
        shard_mb: a shard is closed when it is larger, in MB.

    Raises:
        StorageError: the disk refuses.
    """
    by_split: dict[str, dict[str, list[Row]]] = {split: defaultdict(list) for split in SPLITS}
    for row in rows:
        if not row.withheld:
            by_split[row.split][row.sha256].append(row)
    by_hash = {clip.sha256: clip for clip in clips}
    made: list[Path] = []
    for split, own in by_split.items():
        samples = [(by_hash[sha256], own[sha256]) for sha256 in sorted(own)]
        made += _write(folder / "shards", split, samples, media, limit=shard_mb * MB)
    return made


def _write(
    folder: Path, split: str, samples: Sequence[tuple[ClipRow, list[Row]]], media: Mapping[str, Path], *, limit: int
) -> Iterator[Path]:
    left = iter(samples)
    sample = next(left, None)
    number = 0
    while sample is not None:
        path = folder / f"{split}-{number:06d}.tar"
        with storage_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as shard:
                while sample is not None:
                    _add(shard, *sample, media)
                    sample = next(left, None)
                    if shard.offset > limit:
                        break
        number += 1
        yield path


def _add(shard: tarfile.TarFile, clip: ClipRow, rows: Sequence[Row], media: Mapping[str, Path]) -> None:
    said: dict[str, Any] = {"clip": clip.model_dump(mode="json"), "rows": [row.model_dump(mode="json") for row in rows]}
    text = canonical_json(said)
    shard.addfile(_member(f"{clip.sha256}.json", len(text)), io.BytesIO(text))
    if (path := media.get(clip.sha256)) is not None:
        with path.open("rb") as file:
            shard.addfile(_member(f"{clip.sha256}{path.suffix.lower()}", path.stat().st_size), file)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member
