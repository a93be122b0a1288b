"""describe, where somebody has the labels already: they come from a file and no model is asked.

JSON lines, a clip each, named by ``sha256`` or by ``path`` below the folder of clips; where both stand, the file at
that path must have that hash. A harmful clip has a category of the taxonomy, and evidence lies inside the clip:

    {"path": "a.mp4", "caption": "…", "visual": "harmful", "category": "fraud",
     "evidence": [{"span": {"start_s": 1.0, "end_s": 2.5}, "what": "a red sign"}]}

Example:
    >>> step = DescribeFromManifest.of(Path("labels.jsonl"), taxonomy="vse")                  # doctest: +SKIP
    >>> run_step(step, kept, ledger)                                                         # doctest: +SKIP
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator

from videosafety.build.annotate.text import cleaned
from videosafety.build.check import SLACK_S
from videosafety.build.records import Described, Evidence, Kept, Sha256, Vote
from videosafety.build.state import State, Terminal
from videosafety.core.errors import RecordError
from videosafety.core.jsonl import read_records
from videosafety.core.labels import Safety
from videosafety.core.records import Record
from videosafety.core.store import sha256_file
from videosafety.core.taxonomy import load_taxonomy

ANNOTATOR = "manifest"


class Labelled(Record):
    """What somebody says of a clip."""

    path: str | None = Field(default=None, min_length=1, max_length=4096)
    sha256: Sha256 | None = None
    caption: str = Field(min_length=1, max_length=4000)
    visual: Safety
    category: str | None = Field(default=None, max_length=200)
    evidence: tuple[Evidence, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.path is None and self.sha256 is None:
            raise ValueError("the clip is named neither by path nor by sha256")
        if (self.visual is Safety.HARMFUL) != (self.category is not None):
            raise ValueError("a category goes with a harmful clip, and with no other")
        return self


@dataclass(frozen=True)
class DescribeFromManifest:
    """The step. Where the file lies is no part of a row's key, its content and the taxonomy's ids are."""

    path: str = field(compare=False)
    manifest_sha256: str
    categories: tuple[str, ...]
    name: ClassVar[str] = "describe"
    version: ClassVar[int] = 2
    opens_media: ClassVar[bool] = False
    makes: ClassVar[type[Described]] = Described

    @classmethod
    def of(cls, path: Path, *, taxonomy: str = "vse") -> Self:
        """The step for a file, read whole.

        Raises:
            RecordError: the file is missing, a row does not load, names an unknown category or stands twice.
            InputError: no such taxonomy.
        """
        categories = tuple(one.id for one in load_taxonomy(taxonomy).subcategories)
        seen: set[str] = set()
        for row in read_records(path, Labelled, unique=None):
            if row.category is not None and row.category not in categories:
                raise RecordError(f"unknown category {row.category!r} of {row.path or row.sha256}", where=str(path),
                                  fix=f"use the ids of the taxonomy {taxonomy!r}")  # fmt: skip
            for name in names_of(row):
                if name in seen:
                    raise RecordError(f"{name} is labelled twice", where=str(path), fix="keep one of the rows")
                seen.add(name)
        return cls(str(path), sha256_file(path), categories)

    def __call__(self, kept: Kept) -> Sequence[Described] | Terminal:
        """The clip with its labels; FAILED where it has none, or evidence that lies outside of it."""
        rows = _by_name(self.path, self.manifest_sha256)
        row = rows.get(kept.clip.sha256) or rows.get(kept.clip.found_as or kept.clip.path)
        if row is None:
            return Terminal(state=State.FAILED, reason="labels:missing")
        if row.sha256 not in (None, kept.clip.sha256):
            return Terminal(state=State.FAILED, reason="labels:other_file")
        if any(one.span.end_s > kept.facts.duration_s + SLACK_S for one in row.evidence):
            return Terminal(state=State.FAILED, reason="labels:evidence")
        caption = cleaned(row.caption)
        evidence = tuple(one.model_copy(update={"what": cleaned(one.what)}) for one in row.evidence)
        if not caption or any(not one.what for one in evidence):
            return Terminal(state=State.FAILED, reason="labels:blank")
        vote = Vote(annotator=ANNOTATOR, caption=caption, visual=row.visual, category=row.category,
                    evidence=evidence)  # fmt: skip
        return [Described(id=kept.id, clip=kept.clip, facts=kept.facts, cluster=kept.cluster, caption=caption,
                          visual=row.visual, category=row.category, evidence=evidence, votes=(vote,),
                          by="person")]  # fmt: skip


def names_of(row: Labelled) -> tuple[str, ...]:
    """The hash and the path of a row's clip, as far as they are given."""
    return tuple(name for name in (row.sha256, row.path) if name is not None)


@lru_cache(maxsize=2)
def _by_name(path: str, manifest_sha256: str) -> dict[str, Labelled]:
    """The rows by hash and by path; read once in each process. Raises RecordError: the file is another by now."""
    rows = read_records(path, Labelled, unique=None)
    if sha256_file(path) != manifest_sha256:
        raise RecordError("the labels have changed since the build began", where=path, fix="run the build again")
    return {name: row for row in rows for name in names_of(row)}
