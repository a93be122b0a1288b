"""People's verdicts on clips and on rows, as the review page exports them: JSON lines, one verdict a line.

A clip is told by its content: its id follows from the file's hash. A row is not, since another seed or model writes
other words under the same id, so a verdict on a row holds the digest of what was shown and counts for that alone.
One person gives one verdict on an item. Equal ones in several files are one: each export of a page holds the earlier.

Example:
    >>> ClipVerdict(item="clip-4f", annotator="ann", action="label", visual="safe", seconds=4.0).category is None
    True
    >>> people = read_people([Path("verdicts/ann.jsonl")], categories=["fraud"])             # doctest: +SKIP
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, StringConstraints, model_validator

from videosafety.build.records import Thought
from videosafety.core.errors import InputError, RecordError, did_you_mean
from videosafety.core.jsonl import canonical_json, opened, parse_json, read_records
from videosafety.core.labels import Safety
from videosafety.core.records import Identifier, Record

MAX_FILE_BYTES = 64 * 2**20  # a person who judged 100,000 items exports a third of it
MAX_NAMED = 5  # faults that one error names
SUFFIXES = (".jsonl", ".json")
Annotator = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,59}$")]
Reason = Literal["label", "query", "thinking", "answer", "evidence", "language", "other"]


class _Given(Record):
    """What every verdict says: on what, by whom, in how long, and what else there is to say."""

    item: Identifier
    annotator: Annotator
    seconds: float = Field(ge=0)
    note: str = Field(default="", max_length=1000)


class ClipVerdict(_Given):
    """What a person says of a clip: its label, that it does not belong here, or that nobody should look at it."""

    kind: Literal["clip"] = "clip"
    action: Literal["label", "exclude", "quarantine"]
    visual: Safety | None = None
    category: str | None = Field(default=None, min_length=1, max_length=200)

    @model_validator(mode="after")
    def _a_label_is_whole(self) -> Self:
        if (self.action == "label") != (self.visual is not None):
            raise ValueError("visual goes with the action 'label', and with no other")
        if (self.visual is Safety.HARMFUL) != (self.category is not None):
            raise ValueError("a category goes with a harmful clip, and with no other")
        return self


class RowVerdict(_Given):
    """What a person says of a query with its response. ``seen`` is the digest of what was shown, ``clip`` its clip."""

    kind: Literal["row"] = "row"
    clip: Identifier
    seen: str = Field(pattern=r"^[0-9a-f]{16}$")
    action: Literal["accept", "reject", "quarantine"]
    reasons: tuple[Reason, ...] = ()

    @model_validator(mode="after")
    def _a_rejection_has_reasons(self) -> Self:
        if (self.action == "reject") != bool(self.reasons):
            raise ValueError("reasons go with the action 'reject', and with no other")
        return self


V = TypeVar("V", ClipVerdict, RowVerdict)


@dataclass(frozen=True)
class People:
    """All verdicts, sorted by item and annotator."""

    clips: tuple[ClipVerdict, ...] = ()
    rows: tuple[RowVerdict, ...] = ()
    hidden: frozenset[str] = frozenset()  # clips that no page shows, for another reason

    @property
    def quarantined(self) -> frozenset[str]:
        """The ids of clips that nobody should look at. One person is enough, on whichever page."""
        return self.hidden | frozenset(v.item for v in self.clips if v.action == "quarantine") | frozenset(
            v.clip for v in self.rows if v.action == "quarantine")  # fmt: skip

    @property
    def annotators(self) -> tuple[str, ...]:
        """Who judged anything, sorted."""
        return tuple(sorted({v.annotator for v in (*self.clips, *self.rows)}))


def digest_of(thought: Thought) -> str:
    """16 hex digits over what a reviewer of a row is shown: words, labels and evidence."""
    sample = thought.asked.sample
    shown = [sample.query, sample.language, sample.labels.model_dump(mode="json"), sample.category, thought.think,
             thought.answer, [one.model_dump(mode="json") for one in thought.evidence]]  # fmt: skip
    return hashlib.sha256(canonical_json(shown)).hexdigest()[:16]


def by_item(verdicts: Iterable[V]) -> dict[str, list[V]]:
    """The verdicts on each item."""
    found: dict[str, list[V]] = {}
    for verdict in verdicts:
        found.setdefault(verdict.item, []).append(verdict)
    return found


def read_people(source: Path | Sequence[Path], *, categories: Collection[str] | None = None) -> People:
    """The verdicts of files, or of all files in a folder (which may hold none yet). Capitals make no other person.

    Args:
        source: a folder, or files that the page exported; those of clips and of rows in any order.
        categories: what a harmful clip's category may be; None: anything.

    Raises:
        InputError: there is no such folder; one person said two things of one item.
        RecordError: a file does not load; names file, line and fault.
    """
    clips, rows = list[ClipVerdict](), list[RowVerdict]()
    places: dict[tuple[str, ...], tuple[ClipVerdict | RowVerdict, Path]] = {}
    for path in _files(source):
        kind = _kind(path)
        unique = ("item", "annotator") if kind is ClipVerdict else ("item", "annotator", "seen")
        found: Sequence[ClipVerdict | RowVerdict] = read_records(path, kind, unique=unique)
        _check_categories(path, found, categories)
        for verdict in found:
            key = (verdict.kind, *(getattr(verdict, name) for name in unique))
            first, where = places.setdefault(key, (verdict, path))
            if _said(first) != _said(verdict):
                what = f"{verdict.annotator!r} says another thing of {verdict.item!r} than in {where.name}"
                raise InputError(what, where=str(path), fix="keep the later of the two files")
    for verdict, _ in places.values():
        if isinstance(verdict, ClipVerdict):
            clips.append(verdict)
        else:
            rows.append(verdict)
    return People(clips=tuple(sorted(clips, key=lambda v: (v.item, v.annotator))),
                  rows=tuple(sorted(rows, key=lambda v: (v.item, v.annotator, v.seen))))  # fmt: skip


def _files(source: Path | Sequence[Path]) -> list[Path]:
    if not isinstance(source, Path):
        return list(source)
    if not source.is_dir():
        raise InputError("no such folder of verdicts", where=str(source), fix="make it, and put exported files there")
    found = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
    if strange := [path for path in found if path.suffix.lower() not in SUFFIXES]:
        raise InputError("is no file of verdicts by its name", where=str(strange[0]),
                         fix=f"give it the ending {SUFFIXES[0]}, or move it away")  # fmt: skip
    return found


def _kind(path: Path) -> type[ClipVerdict] | type[RowVerdict]:
    """Of what a file holds verdicts, by its first line: a page exports one kind."""
    with opened(path) as file:
        if path.stat().st_size > MAX_FILE_BYTES:
            what = f"is larger than {MAX_FILE_BYTES // 2**20} MiB: no person judged that much"
            raise RecordError(what, where=str(path), fix="give a file that the review page exported")
        line = file.readline(2**20)
    try:
        first = parse_json(line.decode())
    except ValueError:  # read_records says what is wrong with it
        return ClipVerdict
    return RowVerdict if isinstance(first, dict) and first.get("kind") == "row" else ClipVerdict


def _check_categories(
    path: Path, verdicts: Sequence[ClipVerdict | RowVerdict], categories: Collection[str] | None
) -> None:
    """Every line is a record, so a record's place is its line."""
    given = [v.category if isinstance(v, ClipVerdict) else None for v in verdicts]
    if categories is None:
        return
    bad = [(n, category) for n, category in enumerate(given, start=1) if category not in (None, *categories)]
    if not bad:
        return
    named = "; ".join(f"line {number}: no category {category!r}" for number, category in bad[:MAX_NAMED])
    more = f" and {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else ""
    raise RecordError(named + more, where=f"{path}:{bad[0][0]}", fix=did_you_mean(str(bad[0][1]), categories))


def _said(verdict: ClipVerdict | RowVerdict) -> dict[str, object]:
    """A verdict without how long it took and what was noted beside it."""
    return verdict.model_dump(mode="json", exclude={"seconds", "note"})
