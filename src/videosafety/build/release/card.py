"""The cards of a release: README.md with what Hugging Face reads at its head, and that of ``restricted/``.

All names in a card are foreign text: they are cut, kept on one line, and cannot become markup.

Example:
    >>> cell("a|b <i>")
    'a\\\\|b &lt;i&gt;'
"""

import html
from collections.abc import Iterable
from functools import cache
from typing import Any, Protocol

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from videosafety.build.release.config import PublishConfig
from videosafety.build.release.folder import Tally
from videosafety.build.release.parquet import CLIPS, DATA, SPLITS
from videosafety.build.state import State
from videosafety.core.errors import printable

MAX_CELL = 200  # characters
LICENCES = frozenset(
    {"apache-2.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-sa-4.0", "cc0-1.0", "mit", "odbl"}
)  # those of our kind that Hugging Face has a word for; others go by their name
SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"), (10**12, "n>1M"))


class Manifest(Protocol):
    """What a card reads of the manifest."""

    provenance: dict[str, Any]
    withdrawn_clips: int
    withdrawn_rows: int
    not_in_conversations: tuple[str, ...]


def card(config: PublishConfig, tally: Tally, manifest: Manifest) -> str:
    """The card of a release.

    Args:
        config: names, contacts, formats.
        tally: what was counted.
        manifest: what was said of the build, and what is left out.
    """
    ended = _ended(manifest.provenance.get("account", ()))
    annotators = manifest.provenance.get("annotators") or tally.annotators
    return _environment().get_template("release.md.j2").render(
        front=_front(config, tally), config=config, tally=tally, manifest=manifest,
        splits={split: tally.splits[split] for split in SPLITS},
        table={one: {kind: tally.pairs[one, kind] for kind in tally.kinds} for one in tally.languages},
        categories=[(name, tally.shown[name], tally.asked[name])
                    for name in sorted({*+tally.shown, *+tally.asked})],
        untold=sum(number for (_, licence), number in tally.licences.items() if not licence),
        annotators=sorted(map(str, annotators)), account=ended, agreement=manifest.provenance.get("agreement") or {},
        listed=sum(rows for _, _, reason, rows in ended if reason.startswith("hash_list")),
    )  # fmt: skip


def restricted_card(config: PublishConfig, tally: Tally) -> str:
    """The card of the restricted part."""
    front = _front(config, tally)
    return _environment().get_template("restricted.md.j2").render(front=front, config=config, rows=tally.rows)


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


def _front(config: PublishConfig, tally: Tally) -> str:
    """The YAML head: which files are which split, and what can be searched for."""
    files = [{"split": split, "path": f"{DATA}/{split}.parquet"} for split in SPLITS if tally.splits[split]]
    clips = [{"split": CLIPS, "path": f"{DATA}/{CLIPS}.parquet"}]
    head: dict[str, Any] = {
        "pretty_name": config.name, "language": tally.languages, "task_categories": ["video-text-to-text"],
        "tags": ["safety", "video", "croissant"],
        "size_categories": [next(name for limit, name in SIZES if tally.rows < limit)],
        "configs": [{"config_name": "rows", "default": True, "data_files": files},
                    {"config_name": CLIPS, "data_files": clips}],
    }  # fmt: skip
    if config.licence is not None:
        named = config.licence.lower()
        head |= {"license": named} if named in LICENCES else {"license": "other", "license_name": config.licence}
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n"


def _ended(account: Iterable[Any]) -> list[tuple[str, str, str, int]]:
    """The lines of an account of rows that went no further."""
    lines = [(str(step), str(state), str(reason), int(rows)) for step, state, reason, rows, *_ in account]
    return [line for line in lines if line[1] != State.OK.value]
