"""The rows of a release, flat: one for each query, one for each clip; whole, and as anybody may see them.

What stands outside of ``restricted/`` never holds the words of a harmful request or what was answered to it, nor words
about a harmful clip: its caption, its evidence, and thinking or answers to questions about it. Ids, hashes and labels
stand there for every row. A harmless row that happens to say the words of a harmful one is withheld like it.

Example:
    >>> whole = rows_of(mixed)                                                               # doctest: +SKIP
    >>> [row.query for row in open_rows(whole)]                                              # doctest: +SKIP
    [None, 'What colour is the sign?']
"""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from videosafety.build.diversity import plain
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


def rows_of(mixed: Iterable[Mixed]) -> list[Row]:
    """Whole rows, by id."""
    return sorted((_row(one) for one in mixed), key=lambda row: row.id)


def clips_of(mixed: Iterable[Mixed]) -> list[ClipRow]:
    """Whole rows of the clips, by hash, each once."""
    splits: dict[str, set[str]] = {}
    described: dict[str, Described] = {}
    for one in mixed:
        sha256 = one.asked.described.clip.sha256
        splits.setdefault(sha256, set()).add(one.split)
        described[sha256] = one.asked.described
    return [_clip(described[sha256], tuple(sorted(splits[sha256]))) for sha256 in sorted(described)]


def _row(mixed: Mixed) -> Row:
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


def _clip(described: Described, splits: tuple[str, ...]) -> ClipRow:
    clip = described.clip
    votes = tuple(Verdict(annotator=one.annotator, visual=one.visual, category=one.category) for one in described.votes)
    return ClipRow(
        clip=clip.id, sha256=clip.sha256, num_bytes=clip.num_bytes, media=media_path(clip), cluster=described.cluster,
        splits=splits, facts=described.facts, language=clip.language, visual=described.visual,
        category=described.category, settled_by=described.by, votes=votes, source=clip.source, licence=clip.licence,
        withheld=False, caption=described.caption, evidence=described.evidence,
    )  # fmt: skip


def harmful_words(rows: Sequence[Row]) -> frozenset[str]:
    """What may not stand outside of ``restricted/``: words of harmful requests, and what was said to them alone.

    A response that wholly harmless rows have as well says nothing of a harmful one.
    """
    asked = {plain(row.query or "") for row in rows if row.request is Safety.HARMFUL}
    said: dict[bool, set[str]] = {True: set(), False: set()}
    for row in rows:
        if row.request is Safety.HARMFUL or row.visual is Safety.SAFE:
            said[row.request is Safety.HARMFUL].update(plain(text or "") for text in (row.think, row.answer))
    return frozenset(asked | (said[True] - said[False])) - {""}


def open_rows(rows: Sequence[Row]) -> list[Row]:
    """The same rows as anybody may see them. What a row cannot show is None, and the row says ``withheld``."""
    harmful = harmful_words(rows)
    return [_open(row, harmful) for row in rows]


def _open(row: Row, harmful: frozenset[str]) -> Row:
    asks, shows = row.request is Safety.HARMFUL, row.visual is Safety.HARMFUL
    hidden = {name for name in ("query", "think", "answer") if plain(getattr(row, name) or "") in harmful}
    hidden |= {"query"} if asks else set()
    hidden |= {"think", "answer", "facts"} if asks or shows else set()
    hidden = {name for name in hidden if getattr(row, name)}
    return row.model_copy(update={**dict.fromkeys(hidden), "withheld": True}) if hidden else row


def open_clips(clips: Iterable[ClipRow], rows: Sequence[Row]) -> list[ClipRow]:
    """The same clips as anybody may see them: a harmful one without its description."""
    harmful = harmful_words(rows)
    return [_open_clip(clip, harmful) for clip in clips]


def _open_clip(clip: ClipRow, harmful: frozenset[str]) -> ClipRow:
    texts = [clip.caption or "", *(one.what for one in clip.evidence or ())]
    if clip.visual is Safety.SAFE and not harmful.intersection(map(plain, texts)):
        return clip
    return clip.model_copy(update={"caption": None, "evidence": None, "withheld": True})
