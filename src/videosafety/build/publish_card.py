"""The cards of a release: README.md with what Hugging Face reads at its head, and that of ``restricted/``.

All names in a card are foreign text: they are cut, kept on one line, and cannot become markup.

Example:
    >>> cell("a|b <i>")
    'a\\\\|b &lt;i&gt;'
"""

import html
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Protocol

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from videosafety.build.publish_config import PublishConfig
from videosafety.build.publish_parquet import CLIPS, DATA, SPLITS
from videosafety.build.publish_rows import ClipRow, Row
from videosafety.build.state import State
from videosafety.core.errors import printable
from videosafety.core.labels import Safety

MAX_CELL = 200  # characters
SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"), (10**12, "n>1M"))


class Manifest(Protocol):
    """What a card reads of the manifest."""

    numbers: dict[str, int]
    provenance: dict[str, Any]
    withdrawn_clips: int
    withdrawn_rows: int
    not_in_conversations: tuple[str, ...]


def card(config: PublishConfig, rows: Sequence[Row], clips: Sequence[ClipRow], manifest: Manifest) -> str:
    """The card of a release.

    Args:
        config: names, contacts, formats.
        rows, clips: of the release, whole; their words do not reach the card.
        manifest: numbers, and what was said of the build.
    """
    splits = Counter(row.split for row in rows)
    kinds, languages = sorted({row.kind for row in rows}), sorted({row.language for row in rows})
    pairs = Counter((row.language, row.kind) for row in rows)
    ended = _ended(manifest.provenance.get("account", ()))
    annotators = manifest.provenance.get("annotators") or {vote.annotator for clip in clips for vote in clip.votes}
    return _environment().get_template("release.md.j2").render(
        front=_front(config, rows, has_clips=True), config=config, numbers=manifest.numbers, manifest=manifest,
        splits={split: splits[split] for split in SPLITS}, kinds=kinds, languages=languages,
        table={language: {kind: pairs[language, kind] for kind in kinds} for language in languages},
        categories=_categories(rows, clips), settled=dict(sorted(Counter(clip.settled_by for clip in clips).items())),
        licences=dict(sorted(Counter((clip.source, clip.licence or "") for clip in clips).items())),
        untold=sum(not clip.licence for clip in clips), annotators=sorted(map(str, annotators)), account=ended,
        agreement=manifest.provenance.get("agreement") or {},
        listed=sum(rows for _, _, reason, rows in ended if reason.startswith("hash_list")),
    )  # fmt: skip


def restricted_card(config: PublishConfig, rows: Sequence[Row]) -> str:
    """The card of the restricted part."""
    front = _front(config, rows, has_clips=True)
    return _environment().get_template("restricted.md.j2").render(front=front, config=config, rows=len(rows))


def cell(text: object) -> str:
    """Foreign text as one cell of a table or a piece of a sentence: bounded, on one line, without markup."""
    line = " ".join(printable(str(text)).split())
    line = line if len(line) <= MAX_CELL else f"{line[: MAX_CELL - 1]}…"
    for sign in "\\|`*_[]":
        line = line.replace(sign, f"\\{sign}")
    return html.escape(line, quote=False)


@cache
def _environment() -> Environment:
    environment = Environment(loader=PackageLoader("videosafety.build", "cards"), undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)  # fmt: skip
    environment.filters["cell"] = cell
    return environment


def _front(config: PublishConfig, rows: Sequence[Row], *, has_clips: bool) -> str:
    """The YAML head: which files are which split, and what can be searched for."""
    files = [{"split": split, "path": f"{DATA}/{split}.parquet"} for split in SPLITS
             if any(row.split == split for row in rows)]  # fmt: skip
    configs: list[dict[str, Any]] = [{"config_name": "rows", "default": True, "data_files": files}]
    if has_clips:
        configs.append({"config_name": CLIPS, "data_files": [{"split": CLIPS, "path": f"{DATA}/{CLIPS}.parquet"}]})
    head: dict[str, Any] = {
        "pretty_name": config.name, "language": sorted({row.language for row in rows}),
        "task_categories": ["video-text-to-text"], "tags": ["safety", "video", "croissant"],
        "size_categories": [next(name for limit, name in SIZES if len(rows) < limit)], "configs": configs,
    }  # fmt: skip
    if config.licence is not None:
        head |= {"license": "other", "license_name": config.licence}
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n"


def _categories(rows: Sequence[Row], clips: Sequence[ClipRow]) -> dict[str, tuple[int, int]]:
    shown = Counter(clip.category for clip in clips if clip.visual is Safety.HARMFUL)
    asked = Counter(row.category for row in rows if row.request is Safety.HARMFUL)
    return {name: (shown[name], asked[name]) for name in sorted({*shown, *asked} - {None}, key=str) if name}


def _ended(account: Iterable[Any]) -> list[tuple[str, str, str, int]]:
    """The lines of an account of rows that went no further."""
    lines = [(str(step), str(state), str(reason), int(rows)) for step, state, reason, rows, *_ in account]
    return [line for line in lines if line[1] != State.OK.value]
