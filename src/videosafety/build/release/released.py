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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from videosafety.build.records import Mixed
from videosafety.build.release.config import Format
from videosafety.build.release.rows import Row
from videosafety.core.errors import InputError
from videosafety.core.example import Example, Turn
from videosafety.core.jsonl import canonical_json
from videosafety.core.labels import Safety
from videosafety.core.records import Image, Record, Sample, Video
from videosafety.core.response import render

SAFETY_PROBLEM = "free-form-and-choice"  # the released code's word for rows with both labels
_DIGIT = {Safety.SAFE: 0, Safety.HARMFUL: 1}
_RESERVED = re.compile(r"<(?:video|image)>|\$[01]\$[01]")


class Lines:
    """The JSON lines of a folder: every row goes into the layouts that were chosen and can hold it."""

    def __init__(self, folder: Path, *, formats: Iterable[Format]) -> None:
        self._folder, self._formats = folder, frozenset(formats)
        self._files: dict[str, BinaryIO] = {}

    def add(self, row: Row, mixed: Mixed) -> bool:
        """Write a row, unless some of its words are withheld; False: a conversation cannot hold its words."""
        if row.withheld:
            return True
        if "records" in self._formats:
            self._write(f"{row.split}.jsonl", record_of(mixed, row).model_dump(mode="json"))
        name, layout, as_written = FOREIGN.get(row.split, ("", "records", conversation_of))
        if not name or layout not in self._formats:
            return True
        if _RESERVED.search(f"{row.query} {row.answer} {row.think}"):
            return False
        self._write(name, as_written(row))
        return True

    def close(self) -> None:
        """End all files."""
        for file in self._files.values():
            file.close()

    def _write(self, name: str, row: dict[str, Any]) -> None:
        if name not in self._files:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._files[name] = (self._folder / name).open("wb")
        self._files[name].write(canonical_json(row) + b"\n")


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


FOREIGN: dict[str, tuple[str, Format, Callable[[Row], dict[str, Any]]]] = {
    "sft": ("conversations_sft.jsonl", "conversations", conversation_of),
    "cot": ("conversations_cot.jsonl", "conversations", conversation_of),
    "rl": ("grpo_rl.jsonl", "grpo", problem_of),
}
