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

from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from videosafety import __version__
from videosafety.build.records import Clip, Mixed
from videosafety.build.release.card import card, restricted_card
from videosafety.build.release.check import enforce_release
from videosafety.build.release.config import RESTRICTED, PublishConfig
from videosafety.build.release.croissant import croissant
from videosafety.build.release.folder import Folder, Tally
from videosafety.build.release.rows import SCHEMA, Words, clip_of, open_clip, open_row, row_of
from videosafety.build.release.takedown import AVAILABILITY, Takedown, available, gone_lines, is_gone, withdrawn
from videosafety.build.store import MediaStore
from videosafety.core.errors import InputError
from videosafety.core.folder import write_folder
from videosafety.core.jsonl import canonical_json
from videosafety.core.labels import Safety
from videosafety.core.records import Record
from videosafety.core.store import MANIFEST, sha256_file, write_json, write_text

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
    index = _Index(rows, gone)
    if not index.order:
        raise InputError("there is nothing to publish", where=str(out), fix="build rows, or look at takedown.jsonl")
    root = clips if clips.is_dir() else clips.parent

    def fill(part: Path) -> None:
        tally, unfit = _write(part, index, config=config, root=root, gone=gone)
        manifest = ReleaseManifest(
            name=config.name, version=config.version, date=config.date, schema_version=SCHEMA,
            created_by=f"videosafety {__version__}", media=config.media, numbers=tally.numbers(),
            withdrawn_clips=len(gone), withdrawn_rows=index.num_gone, not_in_conversations=tuple(sorted(unfit)),
            provenance=dict(provenance), files={},
        )  # fmt: skip
        write_text(part / RESTRICTED / "README.md", restricted_card(config, tally))
        write_text(part / "README.md", card(config, tally, manifest))
        write_json(part / "croissant.json", croissant(config, part, tally, manifest.provenance))
        files = {path.relative_to(part).as_posix(): sha256_file(path) for path in _files(part)}
        write_json(part / MANIFEST, manifest.model_copy(update={"files": files}))
        enforce_release(rows, part)

    return _files(write_folder(out / RELEASE, fill))


class _Index:
    """What is known of all rows before the first is written: their order, the splits of clips, harmful words."""

    def __init__(self, rows: Sequence[Mixed], gone: Container[str]) -> None:
        self._rows, self.num_gone = rows, 0
        self.words = Words()
        self.order: list[tuple[str, str, int]] = []  # hash of the clip, id, place
        self.splits: dict[str, set[str]] = {}
        for place, mixed in enumerate(rows):
            self.words.add(row_of(mixed))
            if is_gone(mixed, gone):
                self.num_gone += 1
                continue
            sha256 = mixed.asked.described.clip.sha256
            self.order.append((sha256, mixed.id, place))
            self.splits.setdefault(sha256, set()).add(mixed.split)
        self.order.sort()

    def by_clip(self) -> Iterator[list[Mixed]]:
        """The rows of a clip, by id; clips by hash."""
        for _, own in groupby(self.order, key=itemgetter(0)):
            yield [self._rows[place] for _, _, place in own]


def _write(
    part: Path, index: _Index, *, config: PublishConfig, root: Path, gone: Mapping[str, Takedown]
) -> tuple[Tally, list[str]]:
    """Write both folders and the list of clips; what was counted, and ids of rows that no conversation can hold."""
    whole, shown, tally = Folder(part / RESTRICTED, config), Folder(part, config), Tally()
    with (part / AVAILABILITY).open("wb") as listed:
        for line in gone_lines(gone):
            listed.write(canonical_json(line) + b"\n")
        for own in index.by_clip():
            clip = own[0].asked.described.clip
            described = clip_of(own[0].asked.described, tuple(sorted(index.splits[clip.sha256])))
            rows = [row_of(mixed) for mixed in own]
            seen = [open_row(row, index.words) for row in rows]
            tally.add(described, rows, withheld=sum(row.withheld for row in seen))
            listed.write(canonical_json(available(clip)) + b"\n")
            inside = _brought(part / RESTRICTED, clip, root=root) if config.media else None
            is_safe = described.visual is Safety.SAFE
            outside = _brought(part, clip, root=root) if config.media and is_safe else None
            whole.add(described, list(zip(rows, own, strict=True)), file=inside)
            shown.add(open_clip(described, index.words), list(zip(seen, own, strict=True)), file=outside)
    whole.close()
    shown.close()
    return tally, whole.unfit


def _brought(folder: Path, clip: Clip, *, root: Path) -> Path:
    """The clip's file in the folder's media. Raises InputError: it is not there, or not what it was."""
    file = root / clip.path
    if not file.is_file():
        raise InputError("no such clip", where=str(file), fix="give the folder that the build was made of")
    try:
        return MediaStore(folder / "media").put(file, sha256=clip.sha256)
    except ValueError as error:
        raise InputError(str(error), where=str(file), fix="run the build again") from error


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
