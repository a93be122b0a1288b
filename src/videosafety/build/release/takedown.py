"""Clips that must go out no more, and what is said of those that were: a ledger beside the release, read by the next.

``take_down`` adds lines to ``takedown.jsonl`` in the build's folder and changes nothing else. The next ``publish``
leaves these clips out, and every row that was made of them, whatever the build says. A release lists all its clips in
``availability.jsonl``, withdrawn ones by hash alone, so that who has a copy knows what to delete. Who asked, and in
which words, stays in the ledger and is not published.

Example:
    >>> take_down(Path("runs/build"), ["clip-4f1c"], reason="privacy", who="A. Person")      # doctest: +SKIP
"""

import datetime
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from videosafety.build.ledger import reading, unpacked
from videosafety.build.places import LEDGER as ROWS
from videosafety.build.records import Clip, Mixed, Probed, Sha256
from videosafety.core.errors import InputError
from videosafety.core.records import Record
from videosafety.core.store import Journal, read_records

Reason = Literal["rights", "privacy", "harm", "error", "other"]
LEDGER = "takedown.jsonl"
AVAILABILITY = "availability.jsonl"
SHA256_DIGITS = 64


class Takedown(Record):
    """A line of the ledger. ``who`` asked for it; ``note`` is in their words. Neither is published."""

    sha256: Sha256
    clip: str
    reason: Reason
    who: str = Field(min_length=1, max_length=500)
    note: str = Field(default="", max_length=4000)
    date: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}$")


class Availability(Record):
    """A clip of this release or of an earlier one. A withdrawn one keeps its hash and the kind of reason alone."""

    sha256: Sha256
    clip: str
    state: Literal["available", "withdrawn"]
    source: str | None = None
    licence: str | None = None
    reason: Reason | None = None


def take_down(
    out: Path, clips: Sequence[str], *, reason: Reason, who: str, note: str = "", date: str | None = None
) -> list[Takedown]:
    """Withdraw clips from all releases to come; what is new in the ledger.

    Args:
        out: the folder of the build, with its release.
        clips: ids of clips, ids of rows (then the clip that they are about) or hashes.
        reason: its kind, which is published.
        who: the person or office that asks, which is not.
        note: their words, which are not.
        date: the day, YYYY-MM-DD.

    Raises:
        InputError: no release knows this id or hash, or none was published yet. Nothing is withdrawn then.
        StorageError: the disk refuses.
    """
    listed = out / "release" / AVAILABILITY
    if not listed.is_file():
        raise InputError("there is no release in this folder", where=str(out), fix="publish first, or use a hash list")
    known = {one.sha256: one for one in read_records(listed, Availability, unique="sha256")}
    by_clip = {one.clip: one.sha256 for one in known.values()}
    if date is not None and not _is_day(date):
        raise InputError(f"not a day: {date!r}", where="date", fix="write it as 2026-01-31")
    found: dict[str, str] = {}
    for name in (one.lower() if len(one) == SHA256_DIGITS else one for one in clips):
        sha256 = name if name in known else by_clip.get(name.partition(".")[0])
        if sha256 is None:
            raise InputError(f"the release has no clip {name!r}", where=str(listed), fix="give its id or its SHA-256")
        found[sha256] = known[sha256].clip
    found |= copies_of(found.values(), out)
    with Journal(out / LEDGER) as journal:
        gone = {one.sha256 for one in journal.read(Takedown)}
        new = [Takedown(sha256=sha256, clip=clip, reason=reason, who=who, note=note, date=date)
               for sha256, clip in found.items() if sha256 not in gone]  # fmt: skip
        journal.append(*new)
    return new


def copies_of(clips: Iterable[str], out: Path, *, ever: bool = False) -> dict[str, str]:
    """Near duplicates that the last build (or ``ever`` one) left out for one of these clips: ids by hash.

    Without that clip in the folder they would take its place.
    """
    copies: dict[str, str] = {}
    if not (out / ROWS).is_file():
        return copies
    now = "" if ever else " JOIN current c ON c.step = o.step AND c.key = o.key"
    query = f"SELECT o.row FROM outcomes o{now} WHERE o.step='filter' AND o.reason=?"
    with reading(out / ROWS) as database:
        for clip in clips:
            for (copy,) in database.execute(query, (f"duplicate:near:{clip}",)).fetchall():
                made = database.execute("SELECT made, num_made FROM outcomes WHERE step='probe' AND row=? AND"
                                        " state='ok'", (copy,)).fetchone()  # fmt: skip
                if made is not None:
                    copies[Probed.model_validate_json(unpacked(*made)[0]).clip.sha256] = copy
    return copies


def _is_day(date: str) -> bool:
    try:
        return datetime.date.fromisoformat(date).isoformat() == date
    except ValueError:
        return False


def withdrawn(out: Path) -> dict[str, Takedown]:
    """What was taken down, by hash. Raises RecordError: the ledger is damaged."""
    return {one.sha256: one for one in Journal(out / LEDGER).read(Takedown)}


def is_gone(row: Mixed, gone: Container[str]) -> bool:
    """Whether a row was made of a clip that is gone."""
    media = row.asked.sample.media
    return row.asked.described.clip.sha256 in gone or (media is not None and media.sha256 in gone)


def available(clip: Clip) -> Availability:
    """The line of a clip that goes out."""
    return Availability(sha256=clip.sha256, clip=clip.id, state="available", source=clip.source, licence=clip.licence)


def gone_lines(gone: Mapping[str, Takedown]) -> list[Availability]:
    """The lines of all clips that were ever withdrawn, by hash."""
    return [Availability(sha256=sha256, clip=one.clip, state="withdrawn", reason=one.reason)
            for sha256, one in sorted(gone.items())]  # fmt: skip
