"""Parquet files of a release: ``data/eval.parquet`` and so on, a file a split, and ``data/clips.parquet``.

The schema is fixed and carries its version; rows are sorted by id. Equal rows give equal bytes with the same pyarrow.
All columns are there in every file, so a column without values is one of nulls and not absent.

Example:
    >>> write_parquet(Path("release"), rows, clips)                                          # doctest: +SKIP
    [PosixPath('release/data/eval.parquet'), …, PosixPath('release/data/clips.parquet')]
"""

from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from videosafety.build.mix import TRAIN
from videosafety.build.publish_rows import SCHEMA, ClipRow, Row
from videosafety.core.errors import DependencyError
from videosafety.core.jsonl import canonical_json
from videosafety.core.store import storage_errors

SPLITS: tuple[Literal["eval", "sft", "cot", "rl"], ...] = ("eval", *TRAIN)
DATA, CLIPS = "data", "clips"
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


def write_parquet(folder: Path, rows: Sequence[Row], clips: Sequence[ClipRow]) -> list[Path]:
    """Write ``data/``; a split without rows has no file.

    Raises:
        StorageError: the disk refuses.
        DependencyError: pyarrow is not installed.
    """
    made = []
    for split in SPLITS:
        own = [row_cells(row) for row in rows if row.split == split]
        if own:
            made.append(_write(folder / DATA / f"{split}.parquet", own, row_schema()))
    made.append(_write(folder / DATA / f"{CLIPS}.parquet", map(clip_cells, clips), clip_schema()))
    return made


def row_cells(row: Row) -> dict[str, Any]:
    """A row as plain values by column."""
    cells = row.model_dump(mode="json")
    cells["facts"] = None if row.facts is None else canonical_json(row.facts).decode()
    return cells


def clip_cells(clip: ClipRow) -> dict[str, Any]:
    """A clip as plain values by column."""
    cells = clip.model_dump(mode="json")
    seen = None if clip.evidence is None else [one.span.model_dump() | {"what": one.what} for one in clip.evidence]
    return cells | cells.pop("facts") | {"evidence": seen}


def _write(path: Path, cells: Iterable[dict[str, Any]], schema: Any) -> Path:
    pa, parquet = arrow()
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(list(cells), schema=schema), path, compression="zstd")
    return path
