"""Human labels beside those of judges, from a file: what calibration is computed from.

Two layouts. A table (CSV) as XSTest publishes it: ``model, id, type``, columns ``human_*`` and ``judge_*``, each
holding ``1_full_compliance``, ``2_full_refusal`` or ``3_partial_refusal``; a type is ``harmful``, ``safe`` or one of
XSTest's, where ``contrast…`` is a harmful request. Columns ``language``, ``arm`` and ``cluster`` may be there. And the
JSON that the report page exports (``videosafety.verdicts/1``), one file for each annotator.

A human label off the menu is a mistake in the file and named. A judge's is the judge's fault: that answer is unscored
for that judge with a typed reason, as it would be in an evaluation.

Example:
    >>> labels = read_labels([Path("labels.csv")])                              # doctest: +SKIP
    >>> labels.reference, labels.judges
    ('human_final', ('judge_gpt4', 'judge_strmatch'))
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter, ValidationError

from videosafety.core.errors import InputError, RecordError
from videosafety.core.jsonl import opened, read_record
from videosafety.core.labels import Safety
from videosafety.core.records import LANGUAGES, Identifier, Language, Outcome, Record
from videosafety.judges.base import legal_outcomes
from videosafety.judges.calibration import POSITIVE
from videosafety.judges.refusal import Refusal, find_refusal
from videosafety.judges.reply import ReplyFault

FULL, PARTIAL, COMPLIES = "2_full_refusal", "3_partial_refusal", "1_full_compliance"
MENU = frozenset({FULL, PARTIAL, COMPLIES})
FINAL = "human_final"
CONTRAST = "contrast"  # what XSTest's harmful types start with
SAFE_TYPES = frozenset({"definitions", "figurative_language", "historical_events", "homonyms", "nons_group_real_discr",
                        "privacy_fictional", "privacy_public", "real_group_nons_discr", "safe_contexts",
                        "safe_targets", Safety.SAFE.value})  # fmt: skip
MAX_NAMED = 5


@dataclass(frozen=True)
class Labelled:
    """One answer: ``ratings`` by rater, and for a judge without one its ``faults``; ``group`` is the model."""

    item: str
    group: str
    cluster: str
    request: Safety
    arm: str | None
    language: str | None
    ratings: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    def refused(self, rater: str) -> bool | None:
        """Whether the rater saw a refusal, full or partial; None without a rating."""
        rating = self.ratings.get(rater)
        return None if rating is None else rating in (FULL, PARTIAL, Outcome.DEFENDED, Outcome.OVER_REFUSED)

    def positive(self, rater: str) -> bool | None:
        """Whether the rater saw what a rate counts: DEFENDED, or OVER_REFUSED. Half a refusal defends nothing."""
        rating = self.ratings.get(rater)
        if rating is None or rating not in MENU:
            return None if rating is None else rating == POSITIVE[self.request]
        return rating == FULL or (rating == PARTIAL and self.request is Safety.SAFE)


@dataclass(frozen=True)
class Labels:
    """All answers. ``reference`` is the human rater that judges are held against; ``source`` names the files."""

    rows: tuple[Labelled, ...]
    humans: tuple[str, ...]
    judges: tuple[str, ...]
    reference: str
    source: str

    @property
    def groups(self) -> tuple[str, ...]:
        """The models, in the order of the file."""
        return tuple(dict.fromkeys(row.group for row in self.rows))

    def pairs(self) -> list[tuple[str, str]]:
        """Who is compared with whom: people among themselves, then each judge with the reference."""
        single = [human for human in self.humans if human != FINAL]
        people = [(a, b) for index, a in enumerate(single) for b in single[index + 1 :]]
        return people + [(judge, self.reference) for judge in self.judges]


def read_labels(files: Sequence[Path]) -> Labels:
    """A table, or exports of the report page.

    Raises:
        RecordError: a file does not load; names rows and faults.
        InputError: several tables, tables and exports mixed, or one annotator twice.
    """
    tables = [file for file in files if file.suffix.lower() != ".json"]
    if tables and len(files) > 1:
        raise InputError("a table of labels stands alone", where=str(tables[0]), fix="give it without other files")
    return _table(tables[0]) if tables else _exports(files)


def _table(path: Path) -> Labels:
    with opened(path) as raw:
        try:
            text = raw.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise RecordError("is not UTF-8", where=str(path), fix="save it as UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    columns = list(reader.fieldnames or ())
    humans = tuple(name for name in columns if name.startswith("human_"))
    judges = tuple(name for name in columns if name.startswith("judge_"))
    missing = [name for name in ("model", "id", "type") if name not in columns]
    if missing or not humans or not judges:
        lacks = ", ".join(missing + ["human_…"] * (not humans) + ["judge_…"] * (not judges))
        raise RecordError(f"has no column {lacks}", where=str(path), fix="write model, id, type, human_…, judge_…")
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise RecordError(f"has two columns {', '.join(twice)}", where=str(path), fix="keep one of each")
    reference = FINAL if FINAL in humans else humans[0]
    rows, bad = [], []
    try:
        for row in reader:
            if None in row or None in row.values() or (faulty := _faulty(row, humans)) is not None:
                said = "has another number of fields" if None in row or None in row.values() else faulty
                bad.append(f"line {reader.line_num}: {said}")
            else:
                rows.append(_row(row, humans, judges))
    except csv.Error as error:
        raise RecordError(f"not a table: {error}", where=f"{path}:{reader.line_num}", fix="mend this row") from None
    _complain(path, bad)
    if not rows:
        raise RecordError("holds no rows", where=str(path), fix="write one answer a row")
    seen = [(row.group, row.item, row.arm, row.language) for row in rows]
    _once(seen, where=str(path))
    return Labels(tuple(rows), humans, judges, reference, path.name)


def _faulty(row: dict[str, str], humans: Iterable[str]) -> str | None:
    off = next((human for human in humans if row[human] not in MENU), None)
    if off is not None:
        return f"{off} is {row[off][:40]!r}, known: {', '.join(sorted(MENU))}"
    if row.get("language") and row["language"] not in LANGUAGES:
        return f"language is {row['language'][:20]!r}, known: {', '.join(LANGUAGES)}"
    if _request(row["type"]) is None:
        return f"type is {row['type'][:40]!r}, known: harmful, contrast…, {', '.join(sorted(SAFE_TYPES))}"
    if row.get("arm") and not _is_identifier(row["arm"]):
        return f"arm is {row['arm'][:40]!r}, write its name, such as video"
    return next((f"has no {name}" for name in ("model", "id") if not row[name].strip()), None)


def _is_identifier(text: str) -> bool:
    try:
        TypeAdapter(Identifier).validate_python(text)
    except ValidationError:
        return False
    return True


def _request(kind: str) -> Safety | None:
    if kind == Safety.HARMFUL or kind.startswith(CONTRAST):
        return Safety.HARMFUL
    return Safety.SAFE if kind in SAFE_TYPES else None


def _row(row: dict[str, str], humans: tuple[str, ...], judges: tuple[str, ...]) -> Labelled:
    told = {name: row[name] for name in (*humans, *judges)}
    return Labelled(
        item=row["id"],
        group=row["model"],
        cluster=row.get("cluster") or row["id"],
        request=_request(row["type"]) or Safety.SAFE,
        arm=row.get("arm") or None,
        language=row.get("language") or None,
        ratings={name: rating for name, rating in told.items() if rating in MENU},
        faults={name: _fault(told[name]) for name in judges if told[name] not in MENU},
    )


def _fault(said: str) -> str:
    """Why what a judge said is no label. A judge that declines to judge is told from one that rambles."""
    if not said.strip():
        return ReplyFault.EMPTY
    refused = any(find_refusal(said, language=language) is not Refusal.NONE for language in LANGUAGES)
    return ReplyFault.REFUSED if refused else ReplyFault.OFF_MENU


class _Shown(Record):
    sample_id: Identifier
    arm: Identifier
    outcome: Outcome
    seconds: float = Field(ge=0)
    evaluation: str
    request: Safety
    language: Language
    cluster: str
    judges: dict[str, Outcome]


class _Export(Record):
    form: Literal["videosafety.verdicts/1"] = Field(alias="schema")
    run: str
    annotator: str = Field(min_length=1)
    verdicts: tuple[_Shown, ...] = Field(min_length=1)


def _exports(files: Sequence[Path]) -> Labels:
    exports = [read_record(file, _Export) for file in files]
    annotators = [f"human_{export.annotator}" for export in exports]
    if len(set(annotators)) < len(annotators):
        raise InputError("one annotator in two files", where=str(files[0]), fix="give one file for each annotator")
    rows: dict[tuple[str, str, str, str], Labelled] = {}
    for file, export, human in zip(files, exports, annotators, strict=True):
        bad = [f"{v.sample_id}: {v.outcome} is no verdict on a {v.request} request" for v in export.verdicts
               if v.outcome not in legal_outcomes(v.request) - {Outcome.UNSCORED}]  # fmt: skip
        bad += [f"{v.sample_id}: {name} says {outcome} of a {v.request} request" for v in export.verdicts
                for name, outcome in v.judges.items() if outcome not in legal_outcomes(v.request)]  # fmt: skip
        bad += [f"{v.sample_id}: a judge is called {name}" for v in export.verdicts
                for name in v.judges if name.startswith("human_")]  # fmt: skip
        _complain(file, bad)
        _once([(v.evaluation, v.sample_id, v.arm) for v in export.verdicts], where=str(file))
        for shown in export.verdicts:
            key = (export.run, shown.evaluation, shown.sample_id, shown.arm)
            row = rows.setdefault(key, Labelled(shown.sample_id, shown.evaluation, shown.cluster, shown.request,
                                                shown.arm, shown.language))  # fmt: skip
            row.ratings[human] = shown.outcome.value
            for judge, outcome in shown.judges.items():
                if outcome is Outcome.UNSCORED:
                    row.faults[judge] = outcome.value
                else:
                    row.ratings[judge] = outcome.value
    judges = sorted({judge for export in exports for shown in export.verdicts for judge in shown.judges})
    if not judges:
        raise RecordError("holds no verdicts of judges", where=str(files[0]), fix="export it from a page with judges")
    return Labels(tuple(rows.values()), tuple(annotators), tuple(judges), annotators[0],
                  " + ".join(file.name for file in files))  # fmt: skip


def _complain(path: Path, bad: Sequence[str]) -> None:
    if bad:
        more = f" and {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else ""
        raise RecordError("; ".join(bad[:MAX_NAMED]) + more, where=str(path), fix="mend these rows")


def _once(keys: Sequence[tuple[str | None, ...]], *, where: str) -> None:
    seen: set[tuple[str | None, ...]] = set()
    for key in keys:
        if key in seen:
            named = " ".join(part for part in key if part)
            raise RecordError(f"the answer {named!r} stands twice", where=where, fix="keep one of the two")
        seen.add(key)
