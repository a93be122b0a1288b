"""publish: the mixture as a release, in ``OUT/release``: whole or not at all, and the same rows give the same bytes.

    README.md manifest.json croissant.json availability.jsonl
    data/*.parquet  *.jsonl  shards/*.tar         every row; words of what is harmful are left out
    restricted/                                   the same once more, whole; a data set of its own
    media/ restricted/media/                      only with ``media: true``; harmful clips in the second alone

Both folders load with ``datasets.load_dataset``. Clips that were taken down, and rows made of them, are left out. A
release that holds something harmful outside of ``restricted/`` is not put in place.

Example:
    >>> publish(mixed, out, config=PublishConfig(name="ours"), clips=Path("clips"), provenance={})   # doctest: +SKIP
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videosafety import __version__
from videosafety.build.mix import counts
from videosafety.build.publish_card import card, restricted_card
from videosafety.build.publish_check import enforce_release
from videosafety.build.publish_config import RESTRICTED, PublishConfig
from videosafety.build.publish_croissant import croissant
from videosafety.build.publish_parquet import write_parquet
from videosafety.build.publish_released import write_released
from videosafety.build.publish_rows import SCHEMA, ClipRow, Row, clips_of, open_clips, open_rows, rows_of
from videosafety.build.publish_shards import write_shards
from videosafety.build.records import Mixed
from videosafety.build.store import MediaStore
from videosafety.build.takedown import AVAILABILITY, availability, split_off, withdrawn
from videosafety.core.errors import InputError
from videosafety.core.folder import write_folder
from videosafety.core.labels import Safety
from videosafety.core.records import Record
from videosafety.core.store import MANIFEST, sha256_file, write_json, write_records, write_text

RELEASE = "release"


class ReleaseManifest(Record):
    """What a release holds. ``files`` maps every other file to its SHA-256; ``numbers`` are counts by name."""

    name: str
    version: str
    date: str | None
    schema_version: int
    created_by: str
    media: bool
    numbers: dict[str, int]
    withdrawn_clips: int
    withdrawn_rows: int
    not_in_conversations: tuple[str, ...]
    provenance: dict[str, Any]
    files: dict[str, str]


def publish(
    rows: Sequence[Mixed], out: Path, *, config: PublishConfig, clips: Path, provenance: Mapping[str, Any]
) -> list[Path]:
    """Write ``out/release`` anew; its files, in order.

    Args:
        rows: the mixture, all splits.
        out: the folder of the build; ``takedown.jsonl`` in it is heeded.
        config: what goes out.
        clips: the folder of clips, or the manifest in it.
        provenance: what the manifest and the card say of the build, as JSON values. Known to the card: ``account``
            (lists of step, state, reason, rows), ``annotators`` (names), ``agreement`` (figures by name).

    Raises:
        InputError: no row is left, a clip is not what it was, or the release would show what it must not.
        StorageError: the disk refuses; the release before stays.
    """
    gone = withdrawn(out)
    stay, go = split_off(rows, gone)
    if not stay:
        raise InputError("there is nothing to publish", where=str(out), fix="build rows, or look at takedown.jsonl")
    root = clips if clips.is_dir() else clips.parent

    def fill(part: Path) -> None:
        release = _Release(part, stay, config=config, root=root)
        release.write()
        write_records(part / AVAILABILITY, availability(stay, gone))
        manifest = ReleaseManifest(
            name=config.name, version=config.version, date=config.date, schema_version=SCHEMA,
            created_by=f"videosafety {__version__}", media=config.media, numbers=_numbers(stay, release),
            withdrawn_clips=len(gone), withdrawn_rows=len(go), not_in_conversations=tuple(release.unfit),
            provenance=dict(provenance), files={},
        )  # fmt: skip
        write_text(part / RESTRICTED / "README.md", restricted_card(config, release.whole))
        write_text(part / "README.md", card(config, release.whole, release.clips, manifest))
        write_json(part / "croissant.json", croissant(config, part, release.whole, manifest.provenance))
        files = {path.relative_to(part).as_posix(): sha256_file(path) for path in _files(part)}
        write_json(part / MANIFEST, manifest.model_copy(update={"files": files}))
        enforce_release(stay, part)

    return _files(write_folder(out / RELEASE, fill))


class _Release:
    """The data of a release: both folders in all formats."""

    def __init__(self, part: Path, mixed: Sequence[Mixed], *, config: PublishConfig, root: Path) -> None:
        self.part, self.config, self.root = part, config, root
        self.mixed = {one.id: one for one in mixed}
        self.paths = {one.asked.described.clip.sha256: one.asked.described.clip.path for one in mixed}
        self.whole, self.clips = rows_of(mixed), clips_of(mixed)
        self.shown = open_rows(self.whole)
        self.unfit: list[str] = []

    def write(self) -> None:
        """Write ``restricted/`` whole, and beside it what anybody may see."""
        self.unfit = self._folder(self.part / RESTRICTED, self.whole, self.clips)
        self._folder(self.part, self.shown, open_clips(self.clips, self.whole))

    def _folder(self, folder: Path, rows: Sequence[Row], clips: Sequence[ClipRow]) -> list[str]:
        inside = folder.name == RESTRICTED
        may = [clip for clip in clips if self.config.media and (inside or clip.visual is Safety.SAFE)]
        media = {clip.sha256: self._brought(folder, clip) for clip in may}
        write_parquet(folder, rows, clips)
        _, unfit = write_released(folder, rows, self.mixed, formats=self.config.formats)
        if "webdataset" in self.config.formats:
            write_shards(folder, rows, clips, media=media, shard_mb=self.config.shard_mb)
        return unfit

    def _brought(self, folder: Path, clip: ClipRow) -> Path:
        file = self.root / self.paths[clip.sha256]
        if not file.is_file():
            raise InputError("no such clip", where=str(file), fix="give the folder that the build was made of")
        try:
            return MediaStore(folder / "media").put(file, sha256=clip.sha256)
        except ValueError as error:
            raise InputError(str(error), where=str(file), fix="run the build again") from error


def _numbers(mixed: Sequence[Mixed], release: _Release) -> dict[str, int]:
    found = Counter({"rows": len(mixed), "clips": len(release.clips)})
    found += counts(mixed)
    found["withheld"] = sum(row.withheld for row in release.shown)
    for row in release.whole:
        found[f"language {row.language}"] += 1
        found[f"kind {row.kind}"] += 1
    return dict(sorted(found.items()))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
