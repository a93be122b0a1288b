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

from array import array
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

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
    rows: Sequence[Mixed],
    out: Path,
    *,
    config: PublishConfig,
    clips: Path,
    provenance: Mapping[str, Any],
    contents: "Contents | None" = None,
) -> list[Path]:
    """Write ``out/release`` anew; its files, in order.

    Args:
        rows: the mixture, all splits.
        out: the folder of the build; ``takedown.jsonl`` in it is heeded.
        config: what goes out.
        clips: the folder of clips, or the manifest in it.
        provenance: what the manifest and the card say of the build, as JSON values. Known to the card: ``account``
            (lists of step, state, reason, rows), ``annotators`` (names), ``agreement`` (figures by name).
        contents: what a pass over these rows saw; None: they are gone through here.

    Raises:
        InputError: no row is left, a clip is not what it was, or the release would show what it must not.
        StorageError: the disk refuses; the release before stays.
    """
    gone = withdrawn(out)
    contents = contents or Contents.of(rows, gone)
    if not contents.num_clips:
        raise InputError("there is nothing to publish", where=str(out), fix="build rows, or look at takedown.jsonl")
    root = clips if clips.is_dir() else clips.parent

    def fill(part: Path) -> None:
        tally, unfit = _write(part, contents.by_clip(rows), contents.words, config=config, root=root, gone=gone)
        manifest = ReleaseManifest(
            name=config.name, version=config.version, date=config.date, schema_version=SCHEMA,
            created_by=f"videosafety {__version__}", media=config.media, numbers=tally.numbers(),
            withdrawn_clips=len(gone), withdrawn_rows=contents.num_gone, not_in_conversations=tuple(sorted(unfit)),
            provenance=dict(provenance), files={},
        )  # fmt: skip
        write_text(part / RESTRICTED / "README.md", restricted_card(config, tally))
        write_text(part / "README.md", card(config, tally, manifest))
        write_json(part / "croissant.json", croissant(config, part, tally, manifest.provenance))
        files = {path.relative_to(part).as_posix(): sha256_file(path) for path in _files(part)}
        write_json(part / MANIFEST, manifest.model_copy(update={"files": files}))
        enforce_release(part, words=contents.words, clips=contents.harmful)

    return _files(write_folder(out / RELEASE, fill))


class Contents:
    """What a release must know of all rows before the first is written. Of a row its place is kept and no more.

    Args:
        gone: the hashes of clips that were withdrawn.
    """

    def __init__(self, gone: Container[str]) -> None:
        self._gone, self.num_gone = gone, 0
        self.words = Words()
        self.harmful: set[str] = set()  # hashes of clips
        self._places: dict[str, array[int]] = {}  # of the rows of a clip that goes out, by its hash

    @classmethod
    def of(cls, rows: Sequence[Mixed], gone: Container[str]) -> Self:
        """The contents of these rows."""
        contents = cls(gone)
        for place, mixed in enumerate(rows):
            contents.see(place, mixed)
        return contents

    def see(self, place: int, mixed: Mixed) -> None:
        """A row and its place."""
        self.words.add(row_of(mixed))
        described = mixed.asked.described
        if described.visual is Safety.HARMFUL:
            self.harmful.add(described.clip.sha256)
        if is_gone(mixed, self._gone):
            self.num_gone += 1
        else:
            self._places.setdefault(described.clip.sha256, array("q")).append(place)

    @property
    def num_clips(self) -> int:
        """Clips that go out."""
        return len(self._places)

    def by_clip(self, rows: Sequence[Mixed]) -> Iterator[list[Mixed]]:
        """The rows of a clip, by id; clips by hash."""
        for _, places in sorted(self._places.items()):
            yield sorted((rows[place] for place in places), key=attrgetter("id"))


def _write(
    part: Path,
    clips: Iterable[list[Mixed]],
    words: Words,
    *,
    config: PublishConfig,
    root: Path,
    gone: Mapping[str, Takedown],
) -> tuple[Tally, list[str]]:
    """Write both folders and the list of clips; what was counted, and ids of rows that no conversation can hold."""
    whole, shown, tally = Folder(part / RESTRICTED, config), Folder(part, config), Tally()
    with (part / AVAILABILITY).open("wb") as listed:
        for line in gone_lines(gone):
            listed.write(canonical_json(line) + b"\n")
        for own in clips:
            clip = own[0].asked.described.clip
            described = clip_of(own[0].asked.described, tuple(sorted({mixed.split for mixed in own})))
            rows = [row_of(mixed) for mixed in own]
            seen = [open_row(row, words) for row in rows]
            tally.add(described, rows, withheld=sum(row.withheld for row in seen))
            listed.write(canonical_json(available(clip)) + b"\n")
            inside = _brought(part / RESTRICTED, clip, root=root) if config.media else None
            is_safe = described.visual is Safety.SAFE
            outside = _brought(part, clip, root=root) if config.media and is_safe else None
            whole.add(described, list(zip(rows, own, strict=True)), file=inside)
            shown.add(open_clip(described, words), list(zip(seen, own, strict=True)), file=outside)
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
