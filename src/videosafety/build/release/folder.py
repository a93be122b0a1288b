"""A folder of a release in all formats, written clip by clip; and what is counted on the way.

Example:
    >>> folder = Folder(out / "restricted", config)                                          # doctest: +SKIP
    >>> folder.add(clip, [(row, mixed)], file=None)                                          # doctest: +SKIP
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from videosafety.build.records import Mixed
from videosafety.build.release.config import PublishConfig
from videosafety.build.release.parquet import CLIPS, DATA, SPLITS, Table, clip_cells, clip_schema, row_cells, row_schema
from videosafety.build.release.released import Lines
from videosafety.build.release.rows import ClipRow, Row
from videosafety.build.release.shards import MB, Shards
from videosafety.core.labels import Safety


class Folder:
    """Parquet, JSON lines and shards of one folder; nothing of it stays in memory."""

    def __init__(self, folder: Path, config: PublishConfig) -> None:
        self._clips = Table(folder / DATA / f"{CLIPS}.parquet", clip_schema())
        self._rows = {split: Table(folder / DATA / f"{split}.parquet", row_schema()) for split in SPLITS}
        self._lines = Lines(folder, formats=config.formats)
        chosen = SPLITS if "webdataset" in config.formats else ()
        self._shards = {split: Shards(folder / "shards", split, limit=config.shard_mb * MB) for split in chosen}
        self.unfit: list[str] = []

    def add(self, clip: ClipRow, rows: Sequence[tuple[Row, Mixed]], *, file: Path | None) -> None:
        """Write a clip with all its rows; ``file`` is the clip itself, where it goes out."""
        self._clips.add(clip_cells(clip))
        for row, mixed in rows:
            self._rows[row.split].add(row_cells(row))
            if not self._lines.add(row, mixed):
                self.unfit.append(row.id)
        for split, shards in self._shards.items():
            if own := [row for row, _ in rows if row.split == split and not row.withheld]:
                shards.add(clip, own, file)

    def close(self) -> None:
        """End all files."""
        for table in (self._clips, *self._rows.values()):
            table.close()
        self._lines.close()
        for shards in self._shards.values():
            shards.close()


class Tally:
    """What a card and a manifest say in numbers."""

    def __init__(self) -> None:
        self.rows = self.clips = self.withheld = 0
        self.splits: Counter[str] = Counter()
        self.eval_subsets: Counter[str] = Counter()
        self.pairs: Counter[tuple[str, str]] = Counter()  # language, kind
        self.asked: Counter[str] = Counter()  # harmful requests by category
        self.shown: Counter[str] = Counter()  # harmful clips by category
        self.settled: Counter[str] = Counter()
        self.licences: Counter[tuple[str, str]] = Counter()  # source, licence
        self.annotators: set[str] = set()

    def add(self, clip: ClipRow, rows: Sequence[Row], *, withheld: int) -> None:
        """Count a clip with its whole rows, some words of ``withheld`` of which are left out for all."""
        self.clips += 1
        self.rows += len(rows)
        self.withheld += withheld
        self.settled[clip.settled_by] += 1
        self.licences[clip.source, clip.licence or ""] += 1
        self.annotators.update(vote.annotator for vote in clip.votes)
        self.shown[clip.category or ""] += clip.visual is Safety.HARMFUL
        for row in rows:
            self.splits[row.split] += 1
            self.eval_subsets[row.subset] += row.split == "eval"
            self.pairs[row.language, row.kind] += 1
            self.asked[row.category or ""] += row.request is Safety.HARMFUL

    @property
    def languages(self) -> list[str]:
        """Codes, sorted."""
        return sorted({language for language, _ in self.pairs})

    @property
    def kinds(self) -> list[str]:
        """Kinds of queries, sorted."""
        return sorted({kind for _, kind in self.pairs})

    def numbers(self) -> dict[str, int]:
        """All counts by name, for the manifest."""
        found: Counter[str] = Counter({"rows": self.rows, "clips": self.clips, "withheld": self.withheld})
        found += self.splits
        found += Counter({f"eval {name}": number for name, number in self.eval_subsets.items()})
        for (language, kind), number in self.pairs.items():
            found[f"language {language}"] += number
            found[f"kind {kind}"] += number
        return dict(sorted(found.items()))
