"""JSON lines of a release: our own records, and the two layouts that the paper's released training code reads.

    eval.jsonl                    ``Sample``: what ``evaluate`` reads
    sft.jsonl cot.jsonl rl.jsonl  ``Example``: what the four stages read
    conversations_*.jsonl         VideoLLaMA3 conversations with ``safety_labels``; the answer of ``sft`` is plain, that
                                  of ``cot`` is the structured response
    grpo_rl.jsonl                 ``problem_id, data_type, path, problem, problem_type, solution``

Media paths start in the folder of the file. Only rows that show all of their words stand here. Conversations have no
place for the words ``<video>`` and ``<image>`` or a ``$1$0`` marker inside of a message: rows with these are named and
left out of that one layout. The layouts: the README of the released code (arXiv 2505.16643); 0 = safe, 1 = harmful.

Example:
    >>> conversation_of(row)["conversations"][0]                                             # doctest: +SKIP
    {'from': 'human', 'value': '<video>\\nWhat colour is the sign?'}
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from videosafety.build.publish_config import Format
from videosafety.build.publish_rows import Row
from videosafety.build.records import Mixed
from videosafety.core.errors import InputError
from videosafety.core.example import Example, Turn
from videosafety.core.jsonl import canonical_json
from videosafety.core.labels import Safety
from videosafety.core.records import Image, Record, Sample, Video
from videosafety.core.response import render
from videosafety.core.store import write_bytes

SAFETY_PROBLEM = "free-form-and-choice"  # the released code's word for rows with both labels
_DIGIT = {Safety.SAFE: 0, Safety.HARMFUL: 1}
_RESERVED = re.compile(r"<(?:video|image)>|\$[01]\$[01]")


def write_released(
    folder: Path, rows: Sequence[Row], mixed: Mapping[str, Mixed], *, formats: Iterable[Format]
) -> tuple[list[Path], list[str]]:
    """Write the chosen layouts; the paths, and ids of rows whose words a conversation cannot hold.

    Args:
        folder: of the release, or its restricted folder.
        rows: the rows of this folder.
        mixed: the rows of the mixture by id.
        formats: which layouts; what is none of them is passed over.

    Raises:
        StorageError: the disk refuses.
    """
    shown = [row for row in rows if not row.withheld]
    fit = [row for row in shown if not _RESERVED.search(f"{row.query} {row.answer} {row.think}")]
    made: list[Path] = []
    chosen = set(formats)
    if "records" in chosen:
        for split in ("eval", "sft", "cot", "rl"):
            records = [record_of(mixed[row.id], row) for row in shown if row.split == split]
            made += _write(folder / f"{split}.jsonl", [record.model_dump(mode="json") for record in records])
    layouts: list[tuple[Format, str, str, Callable[[Row], dict[str, Any]]]] = [
        ("conversations", "sft", "conversations_sft.jsonl", conversation_of),
        ("conversations", "cot", "conversations_cot.jsonl", conversation_of),
        ("grpo", "rl", "grpo_rl.jsonl", problem_of),
    ]
    for layout, split, name, as_written in layouts:
        if layout in chosen:
            made += _write(folder / name, [as_written(row) for row in fit if row.split == split])
    unfit = {row.id for row in shown} - {row.id for row in fit} if chosen & {"conversations", "grpo"} else set()
    return made, sorted(row.id for row in shown if row.id in unfit and row.split != "eval")


def record_of(mixed: Mixed, row: Row) -> Record:
    """The sample or the example of a row, its media by hash and relative to the set's folder."""
    if mixed.example is None:
        sample: Sample = mixed.asked.sample
        return sample.model_copy(update={"media": _medium(row), "split": row.split})
    example: Example = mixed.example
    medium = _medium(row)
    turn = Turn(role="user", text=example.turns[-1].text, media=() if medium is None else (medium,))
    return example.model_copy(update={"turns": (turn,)})


def conversation_of(row: Row) -> dict[str, Any]:
    """A training row in the VideoLLaMA3 layout. Raises InputError: some of its words are withheld."""
    question, answer = _words(row)
    said = answer if row.split == "sft" else _structured(row, answer)
    opened = question if row.media is None else f"<{row.media_kind}>\n{question}"
    shown = {} if row.media is None else {str(row.media_kind): [row.media]}
    labels = {"visual": _DIGIT[row.visual], "textual": _DIGIT[row.textual], "request": _DIGIT[row.request]}
    return {"id": row.id, "language": row.language, "safety_labels": labels, **shown,
            "conversations": [{"from": "human", "value": opened}, {"from": "gpt", "value": said}]}  # fmt: skip


def problem_of(row: Row) -> dict[str, Any]:
    """A training row in the layout of stage 4. Raises InputError: some of its words are withheld."""
    question, answer = _words(row)
    return {"problem_id": row.id, "data_type": row.media_kind, "path": row.media, "problem": question,
            "problem_type": SAFETY_PROBLEM, "solution": _structured(row, answer)}  # fmt: skip


def _words(row: Row) -> tuple[str, str]:
    if row.query is None or row.answer is None:
        raise InputError("a training row needs its query and its answer", where=row.id, fix="read restricted/")
    return row.query, row.answer


def _structured(row: Row, answer: str) -> str:
    return render(think=row.think or "", answer=answer, visual=row.visual, textual=row.textual)


def _medium(row: Row) -> Video | Image | None:
    if row.media is None:
        return None
    return (Video if row.media_kind == "video" else Image)(path=row.media, sha256=row.sha256)


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> list[Path]:
    if not rows:
        return []
    write_bytes(path, b"".join(canonical_json(row) + b"\n" for row in rows))
    return [path]
