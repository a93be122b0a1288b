"""Data sets that somebody published, read for what they hold and checked against what was said of them.

Layouts, told by the keys of each row: our own release, VideoLLaMA3 conversations, GRPO problems, and plain tables of
queries with labels; in JSON lines, a JSON array or Parquet. Columns that nobody knows are passed over; labels are not:
one that is missing, is neither 0, 1, safe nor harmful, or disagrees with another place in its row is a fault of that
row, and so is a set of labels that cannot be. The split is what a row, else its file, else its folder is called.

The paper's sets are not out yet. When they are, ``inspect_published(path)`` says whether they have the 77,646 pairs,
the 11.4k and 46k = 6k + 15k + 25k rows, the 19 categories and the 10 languages (``gates.PUBLISHED``).

Example:
    >>> print(inspect_published(Path("VSE")))                                                # doctest: +SKIP
    vse.jsonl: 11003 rows
    categories 19, eval 11002, languages 10, pairs 11002
    files: passed
    rows: passed
    labels: vse.jsonl:17: no textual label
    counts: eval: 11002 and not 11400 ± 50; …
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from videosafety.build.gates import PUBLISHED, Amount, Declared, Finding, count_faults
from videosafety.build.release.config import RESTRICTED
from videosafety.build.release.parquet import CLIPS, DATA, SPLITS, arrow
from videosafety.build.release.published_rows import LabelError, PublishedRow, Split, row_of, split_of
from videosafety.core.errors import InputError, RecordError, printable
from videosafety.core.jsonl import MAX_LINE_BYTES, opened, parse_json
from videosafety.core.store import MANIFEST, read_json, sha256_file

SUFFIXES = (".jsonl", ".json", ".parquet")
MAX_ARRAY_BYTES = 4 * 2**30
NO_ROWS = frozenset({MANIFEST, "croissant.json", "availability.jsonl", "dataset_info.json", "dataset_infos.json",
                     "state.json"})  # fmt: skip


@dataclass
class Published:
    """Rows, how many each file has (faulty ones too), and what is wrong, by file and line."""

    rows: list[PublishedRow] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    row_faults: list[str] = field(default_factory=list)
    label_faults: list[str] = field(default_factory=list)

    @property
    def numbers(self) -> dict[str, int]:
        """Counts under the names of ``gates.PUBLISHED``; of what no row says anything, nothing is counted.

        ``pairs`` are different ones, of clip and query: the same row in two files is one.
        """
        splits: Counter[str] = Counter(row.split for row in self.rows if row.split is not None)
        found: dict[str, int] = {"pairs": len({row.pair for row in self.rows} - {None}), **splits}
        if train := sum(splits[name] for name in SPLITS if name != "eval"):
            found["train"] = train
        for name, values in (("categories", {row.category for row in self.rows}),
                             ("languages", {row.language for row in self.rows})):  # fmt: skip
            if values := values - {None}:
                found[name] = len(values)
        return found


@dataclass(frozen=True)
class Inspected:
    """What ``inspect_published`` found: as a person reads it, ``str`` of it."""

    files: Mapping[str, int]
    numbers: Mapping[str, int]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not any(finding.faults for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """Of a command that looked: 0, or 2 where something is wrong with the data set."""
        return 0 if self.passed else 2

    def __str__(self) -> str:
        read = [f"{name}: {number} rows" for name, number in self.files.items()]
        numbers = ", ".join(f"{name} {number}" for name, number in sorted(self.numbers.items()))
        return printable("\n".join([*read, numbers, *map(str, self.findings)]))


def inspect_published(
    path: Path | Sequence[Path], *, declared: Declared | None = None, splits: Mapping[str, Split] | None = None,
    harmful_is: Literal[0, 1] = 1,
) -> Inspected:  # fmt: skip
    """Read a data set and say what is wrong with it.

    Args:
        path: a folder, a file or several.
        declared: the counts that it should have; None: of our own release those of its manifest, else the paper's.
        splits, harmful_is: as for ``read_published``.

    Raises:
        InputError: there is nothing to read.
        RecordError: a file cannot be read at all.
        DependencyError: there is Parquet and no pyarrow.
    """
    published = read_published(path, splits=splits, harmful_is=harmful_is)
    ours = _manifest(path) if isinstance(path, Path) else None
    changed = _changed(path, ours) if ours is not None and isinstance(path, Path) else ()
    wanted = declared if declared is not None else PUBLISHED if ours is None else _own_counts(ours)
    return Inspected(published.files, published.numbers, (
        Finding("files", tuple(changed)), Finding("rows", tuple(published.row_faults)),
        Finding("labels", tuple(published.label_faults)),
        Finding("counts", tuple(count_faults(published.numbers, wanted))),
    ))  # fmt: skip


def read_published(
    path: Path | Sequence[Path], *, splits: Mapping[str, Split] | None = None, harmful_is: Literal[0, 1] = 1
) -> Published:
    """All rows of a data set; faults are noted and the next row is read.

    Args:
        path: a folder (of our own release: its restricted part where it is there), a file or several.
        splits: the split of a file by its name, where the name does not tell.
        harmful_is: the digit that means harmful.

    Raises:
        InputError: there is nothing to read.
        RecordError: a file cannot be read at all.
        DependencyError: there is Parquet and no pyarrow.
    """
    files = [(one, one.name) for one in path] if not isinstance(path, Path) else _files(path)
    if not files:
        raise InputError("holds no rows", where=str(path), fix=f"give files that end in {', '.join(SUFFIXES)}")
    published = Published()
    for file, name in files:
        called = (split_of(part) for part in (file.stem, *reversed(PurePosixPath(name).parts[:-1])))
        given = (splits or {}).get(file.name) or next((split for split in called if split), None)
        published.files[name] = 0
        for line, raw in _raw(file):
            published.files[name] += 1
            place = f"{name}:{line}"
            try:
                if not isinstance(raw, Mapping):
                    raise ValueError(raw if isinstance(raw, str) else "not a JSON object")
                row = row_of(raw, harmful_is=harmful_is)
                published.rows.append(row if row.split is not None else row._replace(split=given))
            except LabelError as error:
                published.label_faults.append(f"{place}: {error}")
            except ValueError as error:
                published.row_faults.append(f"{place}: {error}")
    return published


def _files(path: Path) -> list[tuple[Path, str]]:
    """The files with rows, each with the name that faults call it by."""
    if not path.is_dir():
        return [(path, path.name)]
    data = next((one for one in (path / RESTRICTED / DATA, path / DATA) if (one / f"{CLIPS}.parquet").is_file()), None)
    if data is not None:  # our own release: every row stands in its Parquet
        found = [data / f"{split}.parquet" for split in SPLITS if (data / f"{split}.parquet").is_file()]
    else:
        found = [one for one in sorted(path.rglob("*")) if one.is_file() and one.suffix.lower() in SUFFIXES
                 and one.name not in NO_ROWS and not _is_hidden(one.relative_to(path))]  # fmt: skip
    return [(one, one.relative_to(path).as_posix()) for one in found]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _raw(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows with their line, or number in Parquet and arrays; a text in place of a row is why there is none."""
    if path.suffix.lower() == ".parquet":
        yield from _parquet(path)
        return
    with opened(path) as file:
        if file.peek(4096)[:4096].lstrip()[:1] == b"[":
            whole = file.read(MAX_ARRAY_BYTES + 1)
            if len(whole) > MAX_ARRAY_BYTES:
                raise RecordError("an array that is too large", where=str(path), fix="write JSON lines")
            try:
                yield from enumerate(parse_json(whole.decode()), start=1)
            except ValueError as error:
                raise RecordError(str(error), where=str(path), fix="mend the file") from error
            return
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise RecordError("longer than any row", where=f"{path}:{number}", fix="write a row on each line")
            if line.strip():
                yield number, _parsed(line)


def _parsed(line: bytes) -> Any:
    try:
        return parse_json(line.decode())
    except ValueError as error:  # a UnicodeDecodeError is one
        return "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    pa, parquet = arrow()
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (OSError, pa.ArrowException) as error:
        raise RecordError(f"is no Parquet ({type(error).__name__})", where=str(path), fix="fetch it again") from error


# Our own releases


def _manifest(path: Path) -> dict[str, Any] | None:
    if not (path / MANIFEST).is_file():
        return None
    read = read_json(path / MANIFEST)
    return read if isinstance(read, dict) and {"schema_version", "files", "numbers"} <= set(read) else None


def _changed(path: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Files that are not as they were published; the restricted part may be elsewhere as a whole."""
    apart = not (path / RESTRICTED).is_dir()
    for name, sha256 in manifest["files"].items():
        if not (path / name).is_file():
            if not (apart and name.startswith(f"{RESTRICTED}/")):
                yield f"{name} is missing"
        elif sha256_file(path / name) != sha256:
            yield f"{name} is not the file that was published"


def _own_counts(manifest: Mapping[str, Any]) -> Declared:
    numbers = manifest["numbers"]
    return {name: Amount(value=numbers[name]) for name in SPLITS if numbers.get(name)}
