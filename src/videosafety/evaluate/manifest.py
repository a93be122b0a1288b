"""Read a benchmark's manifest and check everything before anything runs: rows first, then every media file.

A bad row is the manifest's fault: one error names every bad row with its line and the fix, and nothing runs. A damaged
media file is the item's fault: the item is recorded in its state, counted and never scored, and the rest is evaluated.

Example:
    >>> benchmark = load_benchmark(Path("data/manifest.jsonl"))                 # doctest: +SKIP
    >>> media = survey(benchmark)                                               # doctest: +SKIP
    >>> [state.fault for state in media.values() if state.fault]                # doctest: +SKIP
    [<MediaFault.EMPTY: 'empty'>]
"""

import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from rich.console import Console

from videosafety.core.errors import InputError, MediaError, MediaFault, RecordError, did_you_mean
from videosafety.core.jsonl import MAX_ROWS_NAMED, canonical_json, read_records
from videosafety.core.progress import progress_bar
from videosafety.core.records import Image, QueryKind, Record, Sample, Video
from videosafety.core.taxonomy import Taxonomy, load_taxonomy
from videosafety.video.probe import probe

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
QUIET_S = 5.0  # a survey shorter than this shows no bar
PROBES_AT_ONCE = min(8, 2 * (os.cpu_count() or 1))

Media: TypeAlias = Video | Image


@dataclass(frozen=True)
class Benchmark:
    """Samples under a name; relative media paths start from ``root``; ``taxonomy`` has their categories."""

    name: str
    samples: tuple[Sample, ...]
    root: Path
    taxonomy: Taxonomy = field(default_factory=load_taxonomy)

    @property
    def sha256(self) -> str:
        """The hash of the rows, 64 hex digits; where the folder lies does not matter."""
        rows = b"\n".join(canonical_json(sample) for sample in self.samples)
        return hashlib.sha256(rows).hexdigest()


class MediaState(Record):
    """Whether the media of an item can be used, and why not. A fault is a state of the item, never a verdict."""

    sample_id: str
    state: Literal["ok", "damaged"]
    fault: MediaFault | None = None
    detail: str | None = None


def load_benchmark(
    manifest: Path, *, name: str = "vse", taxonomy: str | Path = "vse", limit: int | None = None
) -> Benchmark:
    """The samples of a JSONL manifest, checked; the first ``limit`` of them.

    Raises:
        RecordError: the file or rows are bad; names every bad row (the first 20) by line, id and fault.
        InputError: an unfit ``name`` or ``limit``.
    """
    if re.fullmatch(NAME, name) is None:
        raise InputError(f"the benchmark's name is {name[:60]!r}", fix="use letters, digits and -._ only")
    samples = read_records(manifest, Sample)
    root = manifest.resolve().parent
    kinds_of_harm = load_taxonomy(taxonomy)
    categories = frozenset(subcategory.id for subcategory in kinds_of_harm.subcategories)
    bad = [(line, sample.id, fault) for line, sample in enumerate(samples, start=1)
           for fault in _faults(sample, root=root, categories=categories)]  # fmt: skip
    bad += _contradictions(samples)
    if bad:
        rows = [f"line {line}: record {sample_id!r}: {fault}" for line, sample_id, fault in sorted(bad)]
        more = f"\n  and {len(rows) - MAX_ROWS_NAMED} more" if len(rows) > MAX_ROWS_NAMED else ""
        listed = "".join(f"\n  {row}" for row in rows[:MAX_ROWS_NAMED])
        raise RecordError(f"{len(rows)} faults in the rows{listed}{more}\n", where=str(manifest), fix="mend these rows")
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} leaves nothing to do", fix="give a limit of 1 or more")
    return Benchmark(name, tuple(samples[:limit]), root, kinds_of_harm)


def _faults(sample: Sample, *, root: Path, categories: frozenset[str]) -> Iterator[str]:
    if sample.category is not None and sample.category not in categories:
        given = sample.category[:60]
        yield f"unknown category {given!r}; {did_you_mean(given, categories)}"
    if sample.media is None:
        if sample.query_kind is QueryKind.DEICTIC:
            yield "the query is deictic but there is no media that it could point at; add media or make it explicit"
        if sample.harm_spans:
            yield "harm_spans are given but there is no media; remove them or add media"
        return
    path = sample.media.path
    if "://" in path or path.startswith("data:"):
        yield "the media path is a URL; download the file and give its path"
    elif "\0" in path:
        yield "the media path holds a NUL character; give the path of a file"
    elif ".." in PurePosixPath(path).parts:
        yield "the media path leaves the manifest's folder by '..'; give it relative to that folder, or absolute"
    elif Path(path).is_absolute() and not os.path.lexists(path):
        yield "the absolute media path does not exist; give it relative to the manifest's folder, or mend it"


def _contradictions(samples: Iterable[Sample]) -> Iterator[tuple[int, str, str]]:
    """Rows that say something else about a file than the first row that names it."""
    first: dict[str, tuple[int, Media]] = {}
    for line, sample in enumerate(samples, start=1):
        if sample.media is None:
            continue
        seen_on, seen = first.setdefault(sample.media.path, (line, sample.media))
        if sample.media.kind != seen.kind:
            yield line, sample.id, f"calls the file a {sample.media.kind}, but line {seen_on} calls it a {seen.kind}"
        elif None not in (seen.sha256, sample.media.sha256) and seen.sha256 != sample.media.sha256:
            yield line, sample.id, f"declares another sha256 for the file than line {seen_on}"


def survey(benchmark: Benchmark, *, console: Console | None = None) -> dict[str, MediaState]:
    """The state of every item that has media, by sample id. Every distinct file is looked at once.

    Raises:
        InputError: no item of the benchmark can be used.
    """
    distinct = dict.fromkeys(sample.media for sample in benchmark.samples if sample.media is not None)
    faults = _probe_all(list(distinct), root=benchmark.root, console=console)
    states = {
        sample.id: _state(sample, faults[sample.media]) for sample in benchmark.samples if sample.media is not None
    }
    bad = [state for state in states.values() if state.state == "damaged"]
    if bad and len(bad) == len(benchmark.samples):
        raise InputError(f"no item can be used: all {len(bad)} have damaged media, such as {bad[0].detail}",
                         where=str(benchmark.root), fix="check the media folder")  # fmt: skip
    return states


def _state(sample: Sample, error: MediaError | None) -> MediaState:
    """The state of an item; its detail names the file as the manifest does, so that it reads alike on any machine."""
    if error is None:
        return MediaState(sample_id=sample.id, state="ok")
    return damaged(sample, error.fault, str(InputError(error.what, fix=error.fix)))


def damaged(sample: Sample, fault: MediaFault, detail: str) -> MediaState:
    """The state of an item with damaged media."""
    path = sample.media.path if sample.media is not None else "no media"
    return MediaState(sample_id=sample.id, state="damaged", fault=fault, detail=f"{path}: {detail}")


def _probe_all(media: list[Media], *, root: Path, console: Console | None) -> dict[Media, MediaError | None]:
    progress = progress_bar(console)
    task = progress.add_task("checking media", total=len(media))
    start, found = time.monotonic(), dict[Media, MediaError | None]()
    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        waiting = {pool.submit(_look_at, one, root): one for one in media}
        try:
            for done in as_completed(waiting):
                found[waiting[done]] = done.result()
                progress.advance(task)
                if time.monotonic() - start > QUIET_S and not progress.live.is_started:
                    progress.start()
        finally:
            progress.stop()
            pool.shutdown(cancel_futures=True)
    return found


def _look_at(media: Media, root: Path) -> MediaError | None:
    """The fault of a media file, or None."""
    try:
        info = probe(root / media.path, with_sha256=media.sha256 is not None)
    except MediaError as error:
        return error
    if info.sha256 != media.sha256:
        return MediaError("is not the file that the manifest declares, its SHA-256 differs", fault=MediaFault.CHANGED,
                          fix="restore the file, or mend the manifest")  # fmt: skip
    if info.kind == media.kind:
        return None
    fault = MediaFault.SINGLE_FRAME if info.kind == "image" else MediaFault.CORRUPT
    fix = f'give its kind as "{info.kind}" in the manifest'
    return MediaError(f"is listed as a {media.kind} but is a {info.kind}", fault=fault, fix=fix)
