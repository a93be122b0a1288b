"""Raw rows of a JSON file with their line numbers: JSON lines, or one array as the released code also reads it.

A row that cannot be read is handed on with its fault and the next one is read, so that one error can name all of them.
What the file is, is told by its first character and not by its name. JSON is strict: see ``core.jsonl``.

Example:
    >>> [row.line for row in read_rows(Path("data/vst.jsonl"))]
    [1, 2, 3]
"""

import json
import re
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from videosafety.core.errors import RecordError
from videosafety.core.jsonl import MAX_LINE_BYTES, MAX_ROWS_NAMED, opened, parse_json

MAX_ARRAY_BYTES = 4 * 2**30  # a larger array has to be rewritten as JSON lines, which are read one by one

_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = json.JSONDecoder()


class RawRow(NamedTuple):
    """A row as it stands in its file: the line on which it starts, counted from 1, and its object or its fault."""

    line: int
    data: dict[str, Any] | None
    fault: str | None = None


class Place(NamedTuple):
    """Where a row stands. In a Hugging Face dataset ``line`` counts its rows from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Problems:
    """All that is wrong with rows: how many faults there are, and the first of them."""

    def __init__(self) -> None:
        self.num = 0
        self.first: list[tuple[Place, str]] = []

    def add(self, place: Place, what: str, *, id: object = None) -> None:
        """Note one fault. ``what`` is a sentence without the row's text, which can be harmful."""
        self.num += 1
        if len(self.first) < MAX_ROWS_NAMED:
            named = f"record {str(id)[:60]!r}: " if isinstance(id, str | int) else ""
            self.first.append((place, named + what))

    def refuse(self) -> None:
        """Raises RecordError when anything was noted: one error with the first 20 faults and the count of all."""
        if self.num == 1:
            place, what = self.first[0]
            raise RecordError(what, where=str(place), fix="mend this row")
        if self.num:
            listed = "".join(f"\n  {place}: {what}" for place, what in self.first)
            more = f"\n  and {self.num - len(self.first)} more" if self.num > len(self.first) else ""
            raise RecordError(f"{self.num} faults in the training data", fix=f"mend these rows:{listed}{more}")


def read_rows(path: Path) -> Iterator[RawRow]:
    """Every row of a file in its order, unreadable ones with their fault.

    Raises:
        RecordError: the file is missing, unreadable or empty, or an array that is no UTF-8 or too large.
    """
    with opened(path) as file:
        is_array = file.peek(4096)[:4096].lstrip(b" \t\r\n")[:1] == b"["
        num_rows = 0
        for row in _array(file, path) if is_array else _lines(file):
            num_rows += 1
            yield row
    if not num_rows:
        raise RecordError("holds no rows", where=str(path), fix="write one JSON object on each line")


def _lines(file: BufferedReader) -> Iterator[RawRow]:
    """JSON lines; one that is too long is passed over in pieces and never held."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(2**20)) and not rest.endswith(b"\n"):
                pass
            yield RawRow(number, None, f"longer than {MAX_LINE_BYTES} bytes: no row is")
            continue
        try:
            yield _row(number, _text(line))
        except ValueError as error:
            yield RawRow(number, None, str(error))


def _row(line: int, text: str) -> RawRow:
    if not text.strip():
        return RawRow(line, None, "nothing but white space")
    try:
        data = parse_json(text)
    except ValueError as error:
        return RawRow(line, None, str(error))
    if not isinstance(data, dict):
        return RawRow(line, None, "not a JSON object")
    return RawRow(line, data)


def _array(file: BufferedReader, path: Path) -> Iterator[RawRow]:
    """The objects of one JSON array. Where its syntax breaks nothing can be read any more: that is the last row."""
    raw = file.read(MAX_ARRAY_BYTES + 1)
    if len(raw) > MAX_ARRAY_BYTES:
        raise RecordError(f"an array of more than {MAX_ARRAY_BYTES} bytes", where=str(path), fix="write JSON lines")
    try:
        text = _text(raw)
    except ValueError as error:
        raise RecordError(str(error), where=str(path), fix="save it as UTF-8") from error
    del raw
    line, seen, at = 1, 0, _skip(text, _skip(text, 0) + 1)
    more = not text.startswith("]", at)
    while more:
        line, seen = line + text.count("\n", seen, at), at
        try:
            _, end = _PLAIN.raw_decode(text, at)
        except json.JSONDecodeError as error:
            yield RawRow(error.lineno, None, f"not valid JSON: {error.msg}; what follows in the file was not read")
            return
        except RecursionError:
            yield RawRow(line, None, "not valid JSON: nested too deeply; what follows in the file was not read")
            return
        yield _row(line, text[at:end])
        at = _skip(text, end)
        if not text.startswith(("]", ","), at):
            yield RawRow(line, None, "not valid JSON: no comma or bracket after this row; what follows was not read")
            return
        more = text.startswith(",", at)
        at = _skip(text, at + 1) if more else at
    if text[at + 1 :].strip():
        yield RawRow(line, None, "not valid JSON: text after the end of the array")


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _text(raw: bytes) -> str:
    if raw.startswith(b"\xef\xbb\xbf"):
        raise ValueError("starts with a byte order mark: save the file as UTF-8 without it")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start + 1})") from None
