"""What a step of the build is. A row step takes a record and makes records of it, or says why it ends there; a global
step sees all records of the step before (near duplicates, splits, quotas).

A step is a picklable value: its configuration is its fields, so that a worker process or a cluster task runs the very
same step. ``version`` goes up whenever equal input may give other output; together with the fields it is part of the
key of every row that it has worked on.

Example of a row step:
    >>> @dataclass(frozen=True)
    ... class Short:
    ...     name = "short"
    ...     version = 1
    ...     max_s: float
    ...     def __call__(self, clip: Probed) -> list[Probed] | Terminal:
    ...         long = clip.duration_s > self.max_s
    ...         return Terminal(state=State.FILTERED, reason="too_long") if long else [clip]
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from pydantic import BaseModel

from videosafety.build.state import Terminal
from videosafety.core.jsonl import canonical_json
from videosafety.core.records import Record

LATER = {"later": True}  # metadata of a field that a step got later: at its default, hashes are those of before
In = TypeVar("In", bound=Record, contravariant=True)
Out = TypeVar("Out", bound=Record, covariant=True)


class Named(Protocol):
    """What every step says of itself. ``makes`` is the type of the records that come out."""

    @property
    def name(self) -> str:
        """One verb, such as ``probe``."""

    @property
    def version(self) -> int:
        """Goes up whenever equal input may give other output."""

    @property
    def makes(self) -> type[Record]:
        """The type of what it makes, read back from the ledger."""


@runtime_checkable
class RowStep(Named, Protocol[In, Out]):
    """Pure: equal records give equal results. What it raises is a fault of ours, unless it is a VideoSafetyError.

    It runs in a process that may die of a row, unless it says ``opens_media = False`` and there are few rows.
    """

    def __call__(self, record: In, /) -> Sequence[Out] | Terminal:
        """The rows that are made of a record, at least one, or why there is none."""


@runtime_checkable
class AsyncStep(Named, Protocol[In, Out]):
    """A row step that waits for a server: many of its rows are under way at a time."""

    async def run(self, record: In, /) -> Sequence[Out] | Terminal:
        """As a row step."""


@runtime_checkable
class GlobalStep(Named, Protocol[In, Out]):
    """Sees all records at once; what comes back stands in the order of the records, one result each."""

    def over(self, records: Sequence[In], /) -> Iterable[Sequence[Out] | Terminal]:
        """For every record the rows that are made of it, or why there is none. Records are parsed when looked at."""


def step_hash(step: Named) -> str:
    """64 hex digits over a step's name, version and fields.

    A field with ``compare=False`` (a folder) is left out, and so is one of ``LATER`` at its default.
    """
    plain: dict[str, Any] = {}
    one: Field[Any]
    for one in fields(step) if is_dataclass(step) else ():
        value = getattr(step, one.name)
        if one.compare and not (one.metadata.get("later") and value == one.default):
            plain[one.name] = _as_json(value)
    return hashlib.sha256(canonical_json([step.name, step.version, plain])).hexdigest()


def _as_json(value: Any) -> Any:
    """A field as JSON: records by their content, a step inside of a step by its hash."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return step_hash(cast(Named, value)) if is_dataclass(value) else value


def row_key(step_sha256: str, row: bytes) -> str:
    """The key of a row (its canonical JSON) in a step: equal for equal content, whatever run or machine."""
    return hashlib.sha256(step_sha256.encode() + row).hexdigest()
