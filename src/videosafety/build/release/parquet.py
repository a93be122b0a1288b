"""Parquet files of a release: ``data/eval.parquet`` and so on, a file a split, and ``data/clips.parquet``.

The schema is fixed and carries its version; rows are sorted by id. Equal rows give equal bytes with the same pyarrow.
All columns are there in every file, so a column without values is one of nulls and not absent.

Example:
    >>> table = Table(Path("release/data/eval.parquet"), row_schema())                       # doctest: +SKIP
    >>> table.add(row_cells(row))                                                            # doctest: +SKIP
"""

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from videosafety.build.mix import TRAIN
from videosafety.build.release.rows import SCHEMA, ClipRow, Row
from videosafety.core.errors import DependencyError
from videosafety.core.jsonl import canonical_json

SPLITS: tuple[Literal["eval", "sft", "cot", "rl"], ...] = ("eval", *TRAIN)
DATA, CLIPS = "data", "clips"
ROWS_AT_ONCE = 1024  # a row group
VERSION_KEY = b"videosafety_schema"


def arrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet. Raises DependencyError: they are not installed."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise DependencyError("Parquet needs pyarrow", fix="pip install pyarrow") from error


def row_schema() -> Any:
    """The columns of a split. ``facts`` is an object in JSON."""
    pa, _ = arrow()
    span = pa.struct([("start_s", pa.float64()), ("end_s", pa.float64())])
    typed = {"withheld": pa.bool_(), "harm_spans": pa.list_(span)}
    fields = [pa.field(name, typed.get(name, pa.string())) for name in Row.model_fields]
    return pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA).encode()})


def clip_schema() -> Any:
    """The columns of ``clips.parquet``: the facts of the file stand as columns of their own."""
    pa, _ = arrow()
    text, span = pa.string(), [("start_s", pa.float64()), ("end_s", pa.float64())]
    vote = pa.struct([("annotator", text), ("visual", text), ("category", text)])
    seen = pa.struct([*span, ("what", text)])
    facts = [("kind", text), ("codec", text), ("width_px", pa.int64()), ("height_px", pa.int64()),
             ("fps", pa.float64()), ("num_frames", pa.int64()), ("duration_s", pa.float64()),
             ("has_audio", pa.bool_())]  # fmt: skip
    typed = {"num_bytes": pa.int64(), "splits": pa.list_(text), "withheld": pa.bool_(), "votes": pa.list_(vote),
             "evidence": pa.list_(seen)}  # fmt: skip
    fields: list[tuple[str, Any]] = []
    for name in ClipRow.model_fields:
        fields += facts if name == "facts" else [(name, typed.get(name, text))]
    return pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA).encode()})


class Table:
    """A Parquet file that grows by cells; it is there once a row was added, and whole after ``close``.

    Raises:
        DependencyError: pyarrow is not installed.
    """

    def __init__(self, path: Path, schema: Any) -> None:
        self._path, self._schema = path, schema
        self._waiting: list[dict[str, Any]] = []
        self._writer: Any = None

    def add(self, cells: dict[str, Any]) -> None:
        """Write a row."""
        self._waiting.append(cells)
        if len(self._waiting) >= ROWS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write what waits, and end the file."""
        if self._waiting:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        pa, parquet = arrow()
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = parquet.ParquetWriter(self._path, self._schema, compression="zstd")
        self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting = []


def row_cells(row: Row) -> dict[str, Any]:
    """A row as plain values by column."""
    cells = row.model_dump(mode="json")
    cells["facts"] = None if row.facts is None else canonical_json(row.facts).decode()
    return cells


def clip_cells(clip: ClipRow) -> dict[str, Any]:
    """A clip as plain values by column."""
    cells: dict[str, Any] = clip.model_dump(mode="json")
    facts: dict[str, Any] = cells.pop("facts")
    seen = None if clip.evidence is None else [one.span.model_dump() | {"what": one.what} for one in clip.evidence]
    return cells | facts | {"evidence": seen}
