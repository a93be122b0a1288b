"""The rows of a release, flat: one for each query, one for each clip; whole, and as anybody may see them.

What stands outside of ``restricted/`` never holds the words of a harmful request or what was answered to it, nor words
about a harmful clip: its caption, its evidence, and thinking or answers to questions about it. Ids, hashes and labels
stand there for every row. A harmless row that happens to say the words of a harmful one is withheld like it.

Example:
    >>> whole = [row_of(one) for one in mixed]                                               # doctest: +SKIP
    >>> [open_row(row, words).query for row in whole]                              # doctest: +SKIP
    [None, 'What colour is the sign?']
"""

import hashlib
from pathlib import Path, PurePosixPath
from typing import Literal

from videosafety.build.diversity import folded
from videosafety.build.mix import SUBSET_OF
from videosafety.build.records import Clip, Described, Evidence, Facts, Mixed
from videosafety.build.store import SUFFIX, MediaStore
from videosafety.core.labels import Safety
from videosafety.core.records import Record, Span

SCHEMA = 1  # goes up when a column changes its name or meaning


class Verdict(Record):
    """A vote as it is published: without its words."""

    annotator: str
    visual: Safety
    category: str | None


class Row(Record):
    """A query with its labels and, in training splits, the response to learn. ``withheld``: some words are left out.

    ``item`` and ``twin`` name queries whatever split they are in; ``media`` is where the clip lies in the set's folder,
    where the set brings clips or somebody put them.
    """

    id: str
    item: str
    twin: str | None
    split: Literal["eval", "sft", "cot", "rl"]
    kind: str
    subset: str
    language: str
    visual: Safety
    textual: Safety
    request: Safety
    category: str | None
    query_kind: str
    template: str
    reworded_by: str | None
    clip: str
    sha256: str
    cluster: str
    media: str | None
    media_kind: str | None
    withheld: bool
    query: str | None
    think: str | None
    answer: str | None
    facts: dict[str, str] | None
    harm_spans: tuple[Span, ...]


class ClipRow(Record):
    """A clip: what it is, what it shows, who says so, and where it comes from."""

    clip: str
    sha256: str
    num_bytes: int
    media: str
    cluster: str
    splits: tuple[str, ...]
    facts: Facts
    language: str | None
    visual: Safety
    category: str | None
    settled_by: str
    votes: tuple[Verdict, ...]
    source: str
    licence: str | None
    withheld: bool
    caption: str | None
    evidence: tuple[Evidence, ...] | None


def media_path(clip: Clip) -> str:
    """Where a clip lies in a release: by its hash; its own name may say too much."""
    found = SUFFIX.search(PurePosixPath(clip.path).name.lower())
    return MediaStore(Path("media")).path(clip.sha256, suffix=found.group() if found else "").as_posix()


def row_of(mixed: Mixed) -> Row:
    """A whole row."""
    asked, example = mixed.asked, mixed.example
    sample, clip = asked.sample, asked.described.clip
    labels = sample.labels
    return Row(
        id=mixed.id, item=asked.id, twin=asked.twin, split=mixed.split, kind=asked.kind, subset=SUBSET_OF[asked.kind],
        language=sample.language, visual=labels.visual, textual=labels.textual, request=labels.request,
        category=sample.category, query_kind=sample.query_kind.value, template=asked.template,
        reworded_by=asked.reworded_by, clip=clip.id, sha256=clip.sha256, cluster=asked.described.cluster,
        media=None if sample.media is None else media_path(clip),
        media_kind=None if sample.media is None else sample.media.kind, withheld=False, query=sample.query,
        think=example.think if example is not None else None, answer=example.answer if example is not None else None,
        facts=sample.facts, harm_spans=sample.harm_spans,
    )  # fmt: skip


def clip_of(described: Described, splits: tuple[str, ...]) -> ClipRow:
    """A whole row of a clip, and in which splits it is asked about."""
    clip = described.clip
    votes = tuple(Verdict(annotator=one.annotator, visual=one.visual, category=one.category) for one in described.votes)
    return ClipRow(
        clip=clip.id, sha256=clip.sha256, num_bytes=clip.num_bytes, media=media_path(clip), cluster=described.cluster,
        splits=splits, facts=described.facts, language=clip.language, visual=described.visual,
        category=described.category, settled_by=described.by, votes=votes, source=clip.source, licence=clip.licence,
        withheld=False, caption=described.caption, evidence=described.evidence,
    )  # fmt: skip


class Words:
    """What may not stand outside of ``restricted/``: words of harmful requests, and what was said to them alone.

    A response that wholly harmless rows have as well says nothing of a harmful one. Texts are kept as digests.
    """

    def __init__(self) -> None:
        self._asked: set[bytes] = set()
        self._said: dict[bool, set[bytes]] = {True: set(), False: set()}

    def add(self, row: Row) -> None:
        """Know a whole row."""
        asks = row.request is Safety.HARMFUL
        if asks:
            self._asked.add(_digest(row.query))
        if asks or row.visual is Safety.SAFE:
            self._said[asks].update((_digest(row.think), _digest(row.answer)))

    def __contains__(self, text: object) -> bool:
        digest = _digest(text if isinstance(text, str) else None)
        if digest == _NOTHING:
            return False
        return digest in self._asked or (digest in self._said[True] and digest not in self._said[False])


def _digest(text: str | None) -> bytes:
    return hashlib.blake2b(folded(text or "").encode(), digest_size=12).digest()


_NOTHING = _digest(None)


def open_row(row: Row, words: Words) -> Row:
    """The row as anybody may see it. What it cannot show is None, and it says ``withheld``."""
    asks, shows = row.request is Safety.HARMFUL, row.visual is Safety.HARMFUL
    hidden = {name for name in ("query", "think", "answer") if getattr(row, name) in words}
    hidden |= {"query"} if asks else set()
    hidden |= {"think", "answer", "facts"} if asks or shows else set()
    hidden = {name for name in hidden if getattr(row, name)}
    return row.model_copy(update={**dict.fromkeys(hidden), "withheld": True}) if hidden else row


def open_clip(clip: ClipRow, words: Words) -> ClipRow:
    """The clip as anybody may see it: a harmful one without its description."""
    texts = [clip.caption, *(one.what for one in clip.evidence or ())]
    if clip.visual is Safety.SAFE and not any(text in words for text in texts):
        return clip
    return clip.model_copy(update={"caption": None, "evidence": None, "withheld": True})
