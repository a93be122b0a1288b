"""Rows that lie in a ledger and are read when they are looked at, so that a build's memory does not grow with its text.

Example:
    >>> probed = run_step(Probe(root), clips, ledger)                                        # doctest: +SKIP
    >>> len(probed), probed[0].facts.duration_s, probed.json(0)                              # doctest: +SKIP
    (500, 2.0, b'{"clip":{…')
"""

from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from videosafety.build.ledger import Known
from videosafety.core.jsonl import canonical_json
from videosafety.core.records import Record

if TYPE_CHECKING:
    from videosafety.build.ledger import Ledger

R = TypeVar("R", bound=Record)
TOLD_EVERY = 256
KEY_BYTES = 32


class Source(Protocol):
    """Records as canonical JSON, and their type."""

    @property
    def kind(self) -> type[Record]:
        """The type of the records."""

    def __len__(self) -> int:
        """How many there are."""

    def json(self, place: int) -> bytes:
        """One of them."""


class Given:
    """Records that are in memory."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    @property
    def kind(self) -> type[Record]:
        """The type of the records."""
        return type(self._records[0]) if self._records else Record

    def __len__(self) -> int:
        return len(self._records)

    def json(self, place: int) -> bytes:
        """One of them."""
        return canonical_json(self._records[place].model_dump(mode="json"))


class _Parsed(Sequence[R], Generic[R]):
    """A sequence of records that are parsed when they are looked at."""

    kind: type[R]

    @abstractmethod
    def json(self, place: int) -> bytes:
        """One of them, as it was written."""

    @overload
    def __getitem__(self, place: int) -> R: ...
    @overload
    def __getitem__(self, place: slice) -> list[R]: ...
    def __getitem__(self, place: int | slice) -> R | list[R]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        at = place if place >= 0 else len(self) + place
        if not 0 <= at < len(self):
            raise IndexError(place)
        return self.kind.model_validate_json(self.json(at))


class Packed(_Parsed[R]):
    """Records that came as JSON, such as those of a shard."""

    def __init__(self, kind: type[R], rows: Sequence[bytes]) -> None:
        self.kind, self._rows = kind, rows

    def __len__(self) -> int:
        return len(self._rows)

    def json(self, place: int) -> bytes:
        """One of them."""
        return self._rows[place]


class Rows(_Parsed[R]):
    """The rows that a step made. ``keys`` are those of its own rows, ``known`` what became of each, ``source`` what it
    worked on."""

    def __init__(
        self, ledger: "Ledger", step: str, kind: type[R], *, keys: Sequence[str], known: Iterable[Known], source: Source
    ) -> None:
        self.kind = kind
        self._ledger, self._step, self._source = ledger, step, source
        self._keys = bytes.fromhex("".join(keys))  # 32 bytes each, where a list of texts takes four times as much
        self._owner, self._part, self._is_same = array("q"), array("q"), bytearray()
        for one in known:
            self._owner.extend([one.place] * one.num_made)
            self._part.extend(range(one.num_made))
            self._is_same.extend([one.is_same] * one.num_made)
        self._held: tuple[int, tuple[str, ...]] = (-1, ())

    def __len__(self) -> int:
        return len(self._owner)

    def json(self, place: int) -> bytes:
        """One of them, as it was written."""
        owner = self._owner[place]
        if self._is_same[place]:
            return self._source.json(owner)
        if self._held[0] != owner:
            key = self._keys[KEY_BYTES * owner : KEY_BYTES * (owner + 1)].hex()
            self._held = (owner, self._ledger.made(self._step, key))
        return self._held[1][self._part[place]].encode()


class Watched(Sequence[R]):
    """Rows that are gone through once, in whatever order, and tell how far: (looks so far, rows)."""

    def __init__(self, rows: Sequence[R], *, tell: Callable[[int, int], None]) -> None:
        self._rows, self._tell = rows, tell
        self._looks, self._all = 0, len(rows)
        tell(0, self._all)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> R: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[R]: ...
    def __getitem__(self, place: int | slice) -> R | Sequence[R]:
        self._looks += 1
        if self._looks % TOLD_EVERY == 0 or self._looks == self._all:
            self._tell(self._looks, self._all)
        return self._rows[place]


def source_of(records: Any) -> Source:
    """Rows as they are; a list of records as a source."""
    return records if isinstance(records, Rows | Packed | Given) else Given(records)
