"""One source of training data: what a recipe says about it, and its rows as checked examples.

A source says itself what its labels mean. ``labels: given`` is for safety data: a row without labels is an error.
``labels: safe`` is for general data that its user vouches for; ``labels: none`` masks the alarm loss (docs/method.md).

Example:
    >>> vst = Source(name="vst", path="data/vst.jsonl", kind="conversations")
    >>> problems = Problems()
    >>> [row.example.id for row in read_source(vst, problems=problems)]
    ['vst:row-1', 'vst:row-2']
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError, field_validator, model_validator

from videosafety.core.example import Example
from videosafety.core.explain import explain
from videosafety.core.recipe import Config, knob
from videosafety.core.response import ParseStatus, parse
from videosafety.defend.data.conversation import KEYS, example_of
from videosafety.defend.data.hub import read_hub
from videosafety.defend.data.labelling import Policy, settle
from videosafety.defend.data.media import placed
from videosafety.defend.data.raw import Place, Problems, RawRow, read_rows

MAX_ID_CHARS = 200  # of an Identifier
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}"


class Source(Config):
    """A file or a data set, how its rows are written, what its labels mean, and how much of it is used."""

    name: str = knob(help="short name; becomes the prefix of its ids")
    path: str = knob(help="a JSON lines file or a JSON array; for kind hub a local data set or a hub id")
    kind: Literal["records", "conversations", "hub"] = knob(
        "records", help="our Example records, foreign conversations, or a Hugging Face data set of either"
    )
    labels: Policy = knob("given", help="given: every row has them; safe: all rows are; none: masked")
    limit: int | None = knob(None, help="at most so many of its rows", unit="rows", ge=1)
    share: float | None = knob(None, help="its part of the mixture; for all sources or for none", gt=0, le=1)
    media_folder: str | None = knob(None, help="where relative media paths start; the file's own folder if empty")
    ids: Literal["given", "row"] = knob("given", help="take the rows' ids, or number the rows")
    legacy_labels: bool = knob(False, help="read $v$t markers in the words as labels")
    harmful_is: Literal[0, 1] = knob(1, help="the digit that means harmful in its fields, markers and tags")
    subset: str | None = knob(None, help="hub: the configuration of the data set")
    split: str | None = knob(None, help="hub: the split; train if empty")
    revision: str | None = knob(None, help="hub: the commit, so that the data cannot change")

    @field_validator("harmful_is", mode="before")
    @classmethod
    def _is_a_digit(cls, digit: object) -> object:
        if isinstance(digit, bool):
            raise ValueError("give the digit 0 or 1 and not a truth value")
        return digit

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if re.fullmatch(NAME, self.name) is None:
            raise ValueError("the name should be 1 to 40 letters, digits, - or _, starting with a letter or digit")
        alien: tuple[str, ...] = () if self.kind == "hub" else ("subset", "split", "revision")
        alien += ("legacy_labels", "harmful_is") if self.kind == "records" else ()
        for key in alien:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} has no meaning for kind {self.kind}")
        return self


@dataclass(frozen=True)
class Sourced:
    """An example with the place of its row."""

    example: Example
    place: Place


@dataclass
class Account:
    """What happened to a source's rows besides being read."""

    num_rows: int = 0
    num_bad: int = 0
    num_labels_dropped: int = 0
    ignored_keys: set[str] = field(default_factory=set)


def read_source(source: Source, *, problems: Problems, account: Account | None = None) -> Iterator[Sourced]:
    """The good rows of a source, in order, labelled as the source says; bad ones go to ``problems``.

    Ids are ``name:id``, where a row without one is called ``row-7`` by its number. Media paths become absolute.

    Raises:
        RecordError: the file or data set cannot be read at all.
        DependencyError: kind hub without the package ``datasets``.
    """
    account = account if account is not None else Account()
    seen: dict[str, Place] = {}
    for row in _rows(source):
        account.num_rows += 1
        place = Place(source.path, row.line)
        try:
            example = _example(source, row, number=account.num_rows, account=account)
            if (first := seen.setdefault(example.id, place)) is not place:
                fix = "" if source.ids == "row" else ", or set ids: row on its source"
                raise ValueError(f"this id is already on line {first.line}; give each row its own{fix}")
        except ValueError as error:
            account.num_bad += 1
            given = row.data.get("id") if row.data else None
            problems.add(place, str(error), id=given)
            continue
        yield Sourced(example, place)


def _rows(source: Source) -> Iterator[RawRow]:
    if source.kind == "hub":
        return read_hub(source.path, subset=source.subset, split=source.split or "train", revision=source.revision)
    return read_rows(Path(source.path))


def _folder(source: Source) -> Path:
    """Where relative media paths start."""
    if source.media_folder is not None:
        return Path(source.media_folder).resolve()
    path = Path(source.path).resolve()
    return path if path.is_dir() else path.parent


def _example(source: Source, row: RawRow, *, number: int, account: Account) -> Example:
    """The row as it is trained on. Raises ValueError."""
    if row.data is None:
        raise ValueError(row.fault or "not a row")
    data, row_id, ignored = row.data, f"row-{number}", frozenset[str]()
    if source.ids == "row":
        data = data | {"id": row_id}
    if source.kind == "records" or (source.kind == "hub" and data.get("turns") is not None):
        example = _record(_pruned(data) if source.kind == "hub" else data)
    else:
        ignored = frozenset(str(key)[:60] for key, value in data.items() if key not in KEYS and value is not None)
        example = example_of(data, row_id=row_id, legacy_labels=source.legacy_labels, harmful_is=source.harmful_is)
    example, dropped = settle(example, source.labels, ignored=ignored)
    full_id = f"{source.name}:{example.id}"
    if len(full_id) > MAX_ID_CHARS:
        raise ValueError(f"its id is too long: with the source's name it has {len(full_id)} characters")
    example = placed(example.model_copy(update={"id": full_id, "source": source.name}), _folder(source))
    account.num_labels_dropped += dropped
    account.ignored_keys |= ignored if len(account.ignored_keys) < 100 else frozenset()
    return example


def _record(data: object) -> Example:
    """Our record, strictly; the answer and the thinking must be plain, since tags are added when it is trained on."""
    try:
        example = Example.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise ValueError("; ".join(explain(error, kind=Example)[:3])) from None
    if fault := grammar_fault(example):
        raise ValueError(fault)
    return example


def grammar_fault(example: Example) -> str | None:
    """Why the example's fields would not make a well-formed structured response; None where they would."""
    status = parse(example.answer).status
    if status is not ParseStatus.UNTAGGED:
        return f"its answer holds tags of the response grammar ({status.value}); give the bare fields"
    return "its think holds the tag </think>; give the bare field" if "</think>" in (example.think or "") else None


def _pruned(data: object) -> object:
    """Without the nulls with which Arrow fills what a row does not have."""
    if isinstance(data, dict):
        return {key: _pruned(value) for key, value in data.items() if value is not None}
    return [_pruned(one) for one in data] if isinstance(data, list) else data
