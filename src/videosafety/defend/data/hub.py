"""Rows of a Hugging Face data set, local or by hub id, undecoded: media stay references and labels keep their names.

``datasets`` is optional. A class label is read by its name and never by its number, whose order is the data set's own
choice. A column with media inside (bytes, not paths) is refused by the row that holds it.

Example:
    >>> next(read_hub("data/vst", subset=None, split="train", revision=None)).line
    1
"""

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from videosafety.core.errors import DependencyError, RecordError, did_you_mean
from videosafety.defend.data.raw import RawRow

ROWS_AT_ONCE = 256


def read_hub(path_or_id: str, *, subset: str | None, split: str, revision: str | None) -> Iterator[RawRow]:
    """Every row of a split in its order, numbered from 1.

    Args:
        path_or_id: a folder or a file that ``datasets`` reads, a folder written by its ``save_to_disk``, or a hub id.
        subset: the data set's configuration, where it has several.
        split: the split.
        revision: the commit on the hub.

    Raises:
        RecordError: it cannot be loaded, has no such split, or is empty.
        DependencyError: ``datasets`` is not installed.
    """
    table = _load(path_or_id, subset=subset, split=split, revision=revision)
    if not len(table):
        raise RecordError("holds no rows", where=f"{path_or_id} ({split})", fix="give another split")
    features = table.features
    plain = {name: _undecoded(feature) for name, feature in features.items()}
    decode = type(features)(plain).decode_example
    raw = table.with_format("arrow")
    for start in range(0, len(table), ROWS_AT_ONCE):
        for number, row in enumerate(raw[start : start + ROWS_AT_ONCE].to_pylist(), start=start + 1):
            try:
                yield RawRow(number, {key: _named(value, plain[key]) for key, value in decode(row).items()})
            except (ValueError, TypeError, KeyError) as error:
                yield RawRow(number, None, f"cannot be read as the data set declares it ({type(error).__name__})")


def _datasets() -> Any:
    try:
        return import_module("datasets")
    except ImportError as error:
        need = error.name or "datasets"
        raise DependencyError(f"Hugging Face data sets need {need}", fix="pip install datasets") from error


def _load(path_or_id: str, *, subset: str | None, split: str, revision: str | None) -> Any:
    datasets = _datasets()
    where = f"{path_or_id} ({split})"
    try:
        if (Path(path_or_id) / "state.json").is_file() or (Path(path_or_id) / "dataset_dict.json").is_file():
            saved = datasets.load_from_disk(path_or_id)
            if isinstance(saved, datasets.DatasetDict):
                if split not in saved:
                    known = did_you_mean(split, map(str, saved))
                    raise RecordError(f"no such split {split!r}", where=path_or_id, fix=known)
                return saved[split]
            return saved
        path, files = path_or_id, None
        if os.path.isfile(path_or_id):
            kinds = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}
            path, files = kinds.get(Path(path_or_id).suffix, ""), path_or_id
            if not path:
                raise RecordError("is no data file that is known", where=where, fix="use json, jsonl, parquet or csv")
        return datasets.load_dataset(path, subset, data_files=files, split=split, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first = " ".join(str(error).split())[:200]
        fix = "check the path or id, the split and the network"
        raise RecordError(f"cannot be loaded ({type(error).__name__}: {first})", where=where, fix=fix) from error


def _undecoded(feature: Any) -> Any:
    """A feature that leaves media as references."""
    datasets = _datasets()
    if isinstance(feature, dict):
        return {name: _undecoded(inner) for name, inner in feature.items()}
    if isinstance(feature, list):
        return [_undecoded(inner) for inner in feature]
    if isinstance(feature, datasets.Image | datasets.Audio | datasets.Video):
        return type(feature)(decode=False)
    if hasattr(feature, "feature"):
        return type(feature)(_undecoded(feature.feature))
    return feature


def _named(value: Any, feature: Any) -> Any:
    """A value with the names of class labels in place of their numbers."""
    datasets = _datasets()
    if value is None:
        return None
    if isinstance(feature, datasets.ClassLabel):
        return feature.int2str(value)
    if isinstance(feature, dict) and isinstance(value, dict):
        return {key: _named(inner, feature.get(key)) for key, inner in value.items()}
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    if isinstance(value, list) and inner is not None:
        return [_named(one, inner) for one in value]
    return value
