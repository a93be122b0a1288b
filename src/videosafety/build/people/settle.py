"""settle and heed: what people said takes the place of what machines said, or the row waits for people.

    a clip      that one person quarantined          QUARANTINED person:quarantined
                that most people excluded            FILTERED    person:excluded
                that most people labelled alike      goes on with that label, by="person"
                on which people are of two minds     FAILED      people:disagree
                that no person saw, votes split      FAILED      votes:disagree
                any other                            goes on as it is
    a response  that most people rejected            FILTERED    person:rejected
                on which people are of two minds     FAILED      people:disagree

Most is more than half of those who judged; a label is the whole of it, visual and category. FAILED rows are tried again
by every build, so they go on once people have decided. Of several verdicts of two minds none is preferred.

Example:
    >>> Settle(People())(described)                                                          # doctest: +SKIP
    [Described(id='clip-4f…', by='agreement', …)]
"""

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from pydantic import BaseModel

from videosafety.build.people.people import ClipVerdict, People, RowVerdict, by_item, digest_of
from videosafety.build.records import Described, Thought
from videosafety.build.state import State, Terminal
from videosafety.core.jsonl import canonical_json
from videosafety.core.labels import Safety

T = TypeVar("T", bound=Hashable)
QUARANTINED = Terminal(state=State.QUARANTINED, reason="person:quarantined")
DISAGREE = Terminal(state=State.FAILED, reason="people:disagree")


@dataclass(frozen=True)
class Settle:
    """The step on clips. Its key holds ``digest``, of the verdicts that it can heed."""

    people: People = field(default_factory=People, compare=False)
    digest: str = field(init=False)
    name: ClassVar[str] = "settle"
    version: ClassVar[int] = 1
    opens_media: ClassVar[bool] = False
    makes: ClassVar[type[Described]] = Described
    _clips: dict[str, list[ClipVerdict]] = field(init=False, compare=False, repr=False)
    _quarantined: frozenset[str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        quarantined = self.people.quarantined
        object.__setattr__(self, "digest", _digest(self.people.clips, sorted(quarantined)))
        object.__setattr__(self, "_clips", by_item(self.people.clips))
        object.__setattr__(self, "_quarantined", quarantined)

    def __call__(self, described: Described) -> Sequence[Described] | Terminal:
        """The clip with the label that people or machines gave it, or why it stops or waits."""
        if described.id in self._quarantined:
            return QUARANTINED
        given = self._clips.get(described.id, ())
        if not given:
            waits = described.by == "unsettled"
            return Terminal(state=State.FAILED, reason="votes:disagree") if waits else [described]
        most = clip_majority(given)
        if most is None:
            return DISAGREE
        action, visual, category = most
        if action == "exclude" or visual is None:
            return Terminal(state=State.FILTERED, reason="person:excluded")
        return [_labelled(described, visual, category)]


@dataclass(frozen=True)
class Heed:
    """The step on responses. A verdict on other words than the row's counts for nothing."""

    people: People = field(default_factory=People, compare=False)
    digest: str = field(init=False)
    name: ClassVar[str] = "heed"
    version: ClassVar[int] = 1
    opens_media: ClassVar[bool] = False
    makes: ClassVar[type[Thought]] = Thought
    _rows: dict[str, list[RowVerdict]] = field(init=False, compare=False, repr=False)
    _quarantined: frozenset[str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        quarantined = self.people.quarantined
        object.__setattr__(self, "digest", _digest(self.people.rows, sorted(quarantined)))
        object.__setattr__(self, "_rows", by_item(self.people.rows))
        object.__setattr__(self, "_quarantined", quarantined)

    def __call__(self, thought: Thought) -> Sequence[Thought] | Terminal:
        """The row as it came, or why it stops or waits."""
        if thought.asked.described.id in self._quarantined:
            return QUARANTINED
        given = self._rows.get(thought.id, ())
        given = [v for v in given if v.seen == digest_of(thought)] if given else []
        if not given:
            return [thought]
        most = row_majority(given)
        if most is None:
            return DISAGREE
        return [thought] if most == "accept" else Terminal(state=State.FILTERED, reason="person:rejected")


def clip_majority(verdicts: Iterable[ClipVerdict]) -> tuple[str, Safety | None, str | None] | None:
    """(action, visual, category) that more than half gave; None: there is none."""
    return _majority([(v.action, v.visual, v.category) for v in verdicts])


def row_majority(verdicts: Iterable[RowVerdict]) -> str | None:
    """The action that more than half gave; None: there is none."""
    return _majority([v.action for v in verdicts])


def _majority(given: Sequence[T]) -> T | None:
    if not given:
        return None
    value, count = Counter(given).most_common(1)[0]
    return value if 2 * count > len(given) else None


def _labelled(described: Described, visual: Safety, category: str | None) -> Described:
    """The clip with people's label. Words stay where they were said for this label; evidence for another one goes."""
    words = {"caption": described.caption, "evidence": described.evidence}
    if (described.visual, described.category) != (visual, category):
        alike = [v for v in described.votes if v.visual is visual]
        alike.sort(key=lambda v: v.category != category)  # stable: first the very label, then the same side
        words = {"caption": alike[0].caption, "evidence": alike[0].evidence} if alike else words | {"evidence": ()}
    return described.model_copy(update=words | {"visual": visual, "category": category, "by": "person"})


def _digest(verdicts: Sequence[BaseModel], quarantined: Sequence[str]) -> str:
    """Of what verdicts say; not of how long they took or what was noted."""
    said = [v.model_dump(mode="json", exclude={"seconds", "note"}) for v in verdicts]
    return hashlib.sha256(canonical_json([said, list(quarantined)])).hexdigest()[:16]
