"""review: the pages on which people judge clips and responses, and what they agree on; written beside the build.

    OUT/review/clips.html, rows.html      one queue each; with named reviewers one page each, ``clips-ann.html``, and
                                          these for a further person, where two are of two minds and nobody is left
    OUT/review/agreement.html, .json      agreement, pair by pair
    OUT/review/previews/*.json            frames that the pages hold, so that the next build need not decode again
    OUT/review/verdicts/*.jsonl           where reviewers' exports are read from, unless the recipe names a folder

A page is one file that works offline. It holds frames (or links to the files, ``media: files``), words and labels that
are to be checked, and no machine's or other person's view of them. A clip that anybody quarantined is on no page: not
its frames, not its name. Pages of an earlier build that nobody needs are removed.

Example:
    >>> people = read_verdicts(config, out, categories=["fraud"])                            # doctest: +SKIP
    >>> write_review(out, described=described, thoughts=thoughts, people=people, config=config, clips=Path("clips"),
    ...              name="ours", taxonomy=load_taxonomy("vse"))                             # doctest: +SKIP
    [PosixPath('out/review/clips.html'), PosixPath('out/review/rows.html')]
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup

from videosafety.build.people.agreement import agreement, agreement_table
from videosafety.build.people.people import People, Reason, digest_of, read_people
from videosafety.build.people.previews import Preview, previews
from videosafety.build.people.queue import Queued, ReviewConfig, clip_queue, for_annotator, row_queue, unassigned
from videosafety.build.records import Clip, Described, Thought
from videosafety.core.labels import Safety
from videosafety.core.store import storage_errors, write_json, write_text
from videosafety.core.taxonomy import Taxonomy
from videosafety.html.data import data_tag, href, shown
from videosafety.html.page import PEOPLE_SCRIPTS, render

FOLDER, VERDICTS, PREVIEWS = "review", "verdicts", "previews"
MAX_WORDS = 8000  # characters of one text on a page
KEYS = "abcdefghijklmnopqrstuvwxy0123456789"  # of choices; z leads back
REASONS: dict[Reason, str] = {
    "label": "A label is wrong", "query": "The query is wrong or unnatural", "thinking": "The thinking is wrong",
    "answer": "The answer is wrong or unsafe", "evidence": "The evidence is not there",
    "language": "The language is wrong", "other": "Something else (note it)",
}  # fmt: skip
_PAGE = re.compile(r"^(clips|rows)(-[A-Za-z0-9._@+-]+)?\.html$")
Kind = Literal["clip", "row"]


def read_verdicts(config: ReviewConfig, out: Path, *, categories: Collection[str] | None = None) -> People:
    """What people said so far: the recipe's folder, or OUT/review/verdicts where there is one.

    Raises:
        InputError, RecordError: as ``people.read_people``.
    """
    folder = Path(config.verdicts) if config.verdicts else out / FOLDER / VERDICTS
    return read_people(folder, categories=categories) if config.verdicts or folder.is_dir() else People()


def write_review(
    out: Path,
    *,
    described: Sequence[Described],
    thoughts: Sequence[Thought],
    people: People,
    config: ReviewConfig,
    clips: Path,
    name: str,
    taxonomy: Taxonomy,
    workers: int = 1,
    on_row: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write the pages of all queues that hold anything, and the agreement so far; returns their paths.

    Args:
        out: of the build.
        described: clips as machines described them, before ``settle``.
        thoughts: responses that passed their gates, before ``heed``.
        people: what they said so far.
        config: who is asked for what.
        clips: the folder of clips.
        name: of the build; a browser keeps verdicts under it.
        taxonomy: the categories to choose from.
        workers: processes that decode previews.
        on_row: told of previews, (done, total).

    Raises:
        StorageError: a page cannot be written.
    """
    folder = out / FOLDER
    clip_items = clip_queue(described, people, config=config)
    row_items = row_queue(thoughts, people, config=config)
    pages = [(f"clips{suffix}", one, mine) for suffix, one, mine in _parts(clip_items, config)]
    row_pages = [(f"rows{suffix}", one, mine) for suffix, one, mine in _parts(row_items, config)]
    hidden = people.quarantined
    shown_clips: dict[str, Described] = {}
    for _, _, mine in pages:
        shown_clips.update({q.clip: described[q.place] for q in mine[: config.max_items]})
    for _, _, mine in row_pages:
        shown_clips.update({q.clip: thoughts[q.place].asked.described for q in mine[: config.max_items]})
    if hidden & shown_clips.keys():
        raise AssertionError("a quarantined clip was about to be shown")
    seen = {} if config.media == "files" else shown_clips
    made = previews(seen, root=clips, folder=folder / PREVIEWS, num_frames=config.num_frames,
                    max_side_px=config.max_side_px, workers=workers, on_row=on_row)  # fmt: skip
    desk = _Desk(made, clips, folder, name, config, taxonomy)
    written = [desk.clip_page(folder / f"{file}.html", who, mine, described) for file, who, mine in pages]
    written += [desk.row_page(folder / f"{file}.html", who, mine, thoughts) for file, who, mine in row_pages]
    _remove_others(folder, written)
    return [*written, *_write_agreement(folder, people, described, name)]


def _parts(queue: Sequence[Queued], config: ReviewConfig) -> list[tuple[str, str, list[Queued]]]:
    """(suffix of the file, reviewer, items) of each page that holds anything.

    A page without a reviewer is for whoever opens it: all items where nobody is named, else those on which more people
    are needed than there are.
    """
    parts = [(f"-{one}", one, for_annotator(queue, one, config=config)) for one in config.annotators]
    parts.append(("", "", unassigned(queue, config=config) if parts else list(queue)))
    return [part for part in parts if part[2]]


@dataclass(frozen=True)
class _Queue:
    """Script tags that hold a queue."""

    index: Markup
    items: list[Markup]
    clips: list[Markup]


@dataclass(frozen=True)
class _Desk:
    """Writes pages: what all of them share."""

    previews: dict[str, Preview]
    root: Path
    folder: Path
    name: str
    config: ReviewConfig
    taxonomy: Taxonomy

    def clip_page(self, path: Path, annotator: str, queue: Sequence[Queued], described: Sequence[Described]) -> Path:
        """Write the page of a queue of clips."""
        mine = queue[: self.config.max_items]
        rows = [described[one.place] for one in mine]
        items = [{"tags": _facts(row), "parts": []} for row in rows]
        keys = [(row.id, row.id, "", one.judged) for row, one in zip(rows, mine, strict=True)]
        data = self._data("clip", annotator, keys, items, rows)
        actions = [("safe", "Safe", "s"), ("harmful", "Harmful …", "h"), ("exclude", "Exclude", "x"),
                   ("quarantine", "Quarantine", "q")]  # fmt: skip
        lead = ("Say of each clip whether what it shows is safe or harmful, and which harm it is. Exclude what does "
                "not belong into a benchmark: unusable, private, or something else than a clip.")  # fmt: skip
        return self._write(path, "clip", annotator, data, title="Review of clips", lead=lead, actions=actions,
                           question="What does the clip show?", choose="Which harm?", total=len(mine),
                           waiting=len(queue) - len(mine))  # fmt: skip

    def row_page(self, path: Path, annotator: str, queue: Sequence[Queued], thoughts: Sequence[Thought]) -> Path:
        """Write the page of a queue of responses."""
        mine = queue[: self.config.max_items]
        rows = [thoughts[one.place] for one in mine]
        items = [{"tags": _labels(row), "parts": _words(row)} for row in rows]
        clips = [row.asked.described if row.asked.sample.media is not None else None for row in rows]
        keys = [
            (row.id, row.asked.described.id, digest_of(row), one.judged) for row, one in zip(rows, mine, strict=True)
        ]
        data = self._data("row", annotator, keys, items, clips)
        actions = [("accept", "Accept", "a"), ("reject", "Reject …", "x"), ("quarantine", "Quarantine", "q")]
        lead = ("Accept a query with its response if everything about it is right: its labels for this clip, its "
                "language, the reasoning, the evidence and the answer. Reject it otherwise, and say why.")  # fmt: skip
        return self._write(path, "row", annotator, data, title="Review of responses", lead=lead, actions=actions,
                           question="Is all of it right?", choose="What is wrong?", total=len(mine),
                           waiting=len(queue) - len(mine))  # fmt: skip

    def _choices(self, kind: Kind) -> list[tuple[str, str, str]]:
        """(id, label, key) of what a harm or a rejection can be."""
        named: list[tuple[str, str]] = [(one.id, one.name) for one in self.taxonomy.subcategories]
        if kind == "row":
            named = [*REASONS.items()]
        keys = KEYS if kind == "clip" else "1234567"
        return [(id_, label, keys[n] if n < len(keys) else "") for n, (id_, label) in enumerate(named)]

    def _data(
        self,
        kind: Kind,
        annotator: str,
        keys: Sequence[tuple[str, str, str, tuple[str, ...]]],
        items: Sequence[dict[str, Any]],
        clips: Sequence[Described | None],
    ) -> _Queue:
        places: dict[str, int] = {}
        tags: list[Markup] = []
        for item, clip in zip(items, clips, strict=True):
            item |= {"clip": None, "address": None, "kind": clip.facts.kind if clip else "", "note": ""}
            if clip is None:
                continue
            preview = self.previews.get(clip.id)
            if preview is None:
                item["address"] = href(self.root.resolve() / clip.clip.path, start=self.folder.resolve())
            elif preview.frames:
                if clip.id not in places:
                    places[clip.id] = len(tags)
                    tags.append(data_tag(f"clip-{len(tags)}", _frames(preview)))
                item["clip"] = places[clip.id]
            if item["clip"] is None and item["address"] is None:
                item["note"] = shown(preview.note if preview else "No preview: the file is on another disk", 300)
        index = {
            "kind": kind, "name": shown(self.name, 80), "annotator": annotator, "choices": self._choices(kind),
            "pause": {"clips": self.config.break_after_clips, "seconds": round(60 * self.config.break_after_min)},
            "items": [list(key) for key in keys],
        }  # fmt: skip
        return _Queue(data_tag("people-index", index),
                      [data_tag(f"item-{n}", item) for n, item in enumerate(items)], tags)  # fmt: skip

    def _write(self, path: Path, kind: Kind, annotator: str, queue: _Queue, **context: Any) -> Path:
        html = render("review.html.j2", package="videosafety.build.people", scripts=PEOPLE_SCRIPTS, kind=kind,
                      queue=queue, annotator=annotator, name=self.name, choices=self._choices(kind), sections=[],
                      **context)  # fmt: skip
        write_text(path, html)
        return path


def _frames(preview: Preview) -> dict[str, Any]:
    return {"frames": [[p.uri, p.width_px, p.height_px, p.pixelated] for p in preview.frames], "times": preview.times}


def _facts(row: Described) -> list[str]:
    clip: Clip = row.clip
    kind = "picture" if row.facts.kind == "image" else f"clip, {row.facts.duration_s:.1f} s"
    audio = ["has sound, which is not played"] if row.facts.has_audio else []
    return [shown(tag, 80) for tag in (kind, f"{row.facts.width_px} × {row.facts.height_px} px", *audio,
                                       clip.language or "") if tag]  # fmt: skip


def _labels(row: Thought) -> list[str]:
    """Everything that is claimed of a row, for the reviewer to check."""
    sample = row.asked.sample
    due = "must be refused" if sample.labels.request is Safety.HARMFUL else "must be answered"
    seen = f"shown: {sample.labels.visual.value}" if sample.media is not None else "no clip"
    tags = (seen, f"words: {sample.labels.textual.value}", due, sample.category or "", row.asked.kind, sample.language)
    return [shown(tag, 80) for tag in tags if tag]


def _words(row: Thought) -> list[list[Any]]:
    """(what, text, its length, masked, language) of each text of a row."""
    sample = row.asked.sample
    labels = sample.labels
    masked = Safety.HARMFUL in (labels.visual, labels.textual, labels.request)
    said_in: str = sample.language
    texts = [("Query", sample.query, said_in), ("Thinking", row.think, said_in), ("Answer", row.answer, said_in)]
    if row.evidence:
        said = "\n".join(f"{e.span.start_s:.1f} s to {e.span.end_s:.1f} s: {e.what}" for e in row.evidence)
        texts.append(("Evidence", said, ""))
    return [[what, shown(text, MAX_WORDS), len(text), masked, language] for what, text, language in texts]


def _remove_others(folder: Path, written: Collection[Path]) -> None:
    """Pages of an earlier build: they may show what is quarantined by now."""
    with storage_errors(folder):
        for path in folder.iterdir() if folder.is_dir() else ():
            if _PAGE.match(path.name) and path not in written:
                path.unlink()


def _write_agreement(folder: Path, people: People, described: Sequence[Described], name: str) -> list[Path]:
    """The agreement so far; no file of an earlier one stays where there is none."""
    rows = agreement(people, described) if people.annotators else []
    page, data = folder / "agreement.html", folder / "agreement.json"
    if not rows:
        with storage_errors(folder):
            page.unlink(missing_ok=True)
            data.unlink(missing_ok=True)
        return []
    table = agreement_table(rows)
    write_json(data, [row.model_dump(mode="json") for row in rows])
    html = render("agreement.html.j2", package="videosafety.build.people", scripts=("page.js",), table=table, name=name,
                  title="Agreement of reviewers", sections=[], people=len(people.annotators),
                  clips=len(people.clips), rows=len(people.rows))  # fmt: skip
    write_text(page, html)
    return [page, data]
