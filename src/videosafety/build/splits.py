"""splits: ``OUT/splits``, what training and evaluation read: samples in ``eval.jsonl``, examples in the other three.

Rows are written beside the folder as they come. Only when all are there and their clips, too, the files take the place
of those of before: a disk that fills, or a gate that fails, leaves these as they are. The old ones go before the first
new one comes, so that a kill may leave some out and never leaves old ones beside new ones.

Example:
    >>> with Splits(out / "splits", media=out / "store", link=True) as splits:               # doctest: +SKIP
    ...     for row in mixed:
    ...         splits.add(row)
    ...     splits.put()
"""

import os
import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from videosafety.build.mix import TRAIN, counts
from videosafety.build.records import Mixed
from videosafety.build.store import link_media, unlink_others
from videosafety.core.example import Example
from videosafety.core.jsonl import canonical_json
from videosafety.core.records import Sample
from videosafety.core.store import storage_errors, sync


class Splits:
    """The splits of a build, while they are written; ``counts`` are rows by split and subset, as of ``mix.counts``.

    Args:
        folder: where they go.
        media: what the rows' media paths start from.
        link: whether the clips of these rows, and no others, are linked into ``folder``, which can then be moved as a
            whole; else paths are absolute. Training and evaluation read both.

    Raises:
        StorageError: the disk refuses; what stands in ``folder`` stays.
    """

    def __init__(self, folder: Path, *, media: Path, link: bool) -> None:
        self.counts: Counter[str] = Counter()
        self._folder, self._media, self._link = folder, media, link
        self._used: set[str] = set()
        self._files: dict[str, BinaryIO] = {}

    def __enter__(self) -> Self:
        with storage_errors(self._folder):
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            self._aside = Path(tempfile.mkdtemp(prefix=f".{self._folder.name}.", dir=self._folder.parent))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            with suppress(OSError):  # a full disk: who wrote was told
                file.close()
        shutil.rmtree(self._aside, ignore_errors=True)

    def add(self, row: Mixed) -> None:
        """A row of the mixture."""
        self.counts.update(counts([row]))
        if self._link:
            self._used.add(row.asked.described.clip.path)
        with storage_errors(self._folder):
            if row.split not in self._files:
                self._files[row.split] = (self._aside / f"{row.split}.jsonl").open("wb")
            self._files[row.split].write(canonical_json(self._placed(row)) + b"\n")

    def put(self) -> None:
        """Put the splits in place. Raises InputError: a clip of theirs is gone."""
        with storage_errors(self._folder):
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
                file.close()
            self._folder.mkdir(exist_ok=True)
            link_media(self._used, source=self._media, target=self._folder)
            for name in ("eval", *TRAIN):
                (self._folder / f"{name}.jsonl").unlink(missing_ok=True)
            for name in self._files:
                (self._aside / f"{name}.jsonl").replace(self._folder / f"{name}.jsonl")
            sync(self._folder)
            unlink_others(self._used, target=self._folder)

    def _placed(self, row: Mixed) -> Sample | Example:
        """A row as it is read elsewhere: its media paths start from the folder, or are absolute."""
        if self._link:
            return row.asked.sample if row.example is None else row.example
        root = self._media.resolve()
        if row.example is None:
            shown = row.asked.sample.media
            media = shown and shown.model_copy(update={"path": str(root / shown.path)})
            return row.asked.sample.model_copy(update={"media": media})
        (turn,) = row.example.turns
        clips = tuple(one.model_copy(update={"path": str(root / one.path)}) for one in turn.media)
        return row.example.model_copy(update={"turns": (turn.model_copy(update={"media": clips}),)})
