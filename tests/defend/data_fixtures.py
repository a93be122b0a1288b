"""Harmless training rows, files of them, and small media, made on the spot."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videosafety.core.errors import InputError, RecordError
from videosafety.core.example import Example
from videosafety.defend.data.raw import Problems
from videosafety.defend.data.source import Source, read_source
from videosafety.video.write import write_mp4, write_png

SECRET = "zarnzarn"  # stands for words that must never be quoted


def talk(question: str = f"<video>\n{SECRET}?", answer: str = f"{SECRET}.") -> list[dict[str, Any]]:
    """One question and its answer in the released layout."""
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def row(**change: Any) -> dict[str, Any]:
    """A good row of the released layout, changed."""
    labels = {"visual": 1, "textual": 0}
    return {"id": "a", "video": ["a.mp4"], "conversations": talk(), "safety_labels": labels} | change


def record(id: str = "a", **change: Any) -> dict[str, Any]:
    """A good record of ours, changed."""
    turns = [{"role": "user", "text": f"{SECRET}?", "media": [{"kind": "video", "path": "a.mp4"}]}]
    return {"id": id, "turns": turns, "answer": f"{SECRET}.", "visual": "harmful", "textual": "safe"} | change


def tagged(visual: object = 1, textual: object = 0, think: str = "A sign.", answer: str = "No.") -> str:
    """A structured response on the wire."""
    return f"<think>{think}</think>\n<answer>{answer}</answer><vidType>{visual}</vidType><textType>{textual}</textType>"


def write_rows(path: Path, *rows: Any) -> Path:
    """JSON lines; bytes are written as they are."""
    path.write_bytes(b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in rows) + b"\n")
    return path


def source(path: Path, **change: Any) -> Source:
    """A source of foreign conversations, changed."""
    return Source(**{"name": "s", "path": str(path), "kind": "conversations"} | change)


def read(tmp_path: Path, *rows: Any, **change: Any) -> list[Example]:
    """The examples of rows that are all good."""
    problems = Problems()
    found = list(read_source(source(write_rows(tmp_path / "rows.jsonl", *rows), **change), problems=problems))
    assert problems.first == []
    return [one.example for one in found]


def refusal(tmp_path: Path, *rows: Any, **change: Any) -> str:
    """The one error about rows, which quotes none of their words."""
    path = write_rows(tmp_path / "rows.jsonl", *rows)
    problems = Problems()
    with pytest.raises(RecordError) as caught:  # noqa: PT012
        list(read_source(source(path, **change), problems=problems))
        problems.refuse()
    return said(caught.value)


def said(error: InputError) -> str:
    """An error's message."""
    message = str(error)
    assert SECRET not in message
    return message


def clip(path: Path) -> Path:
    """A clip of two frames."""
    write_mp4(path, np.arange(2 * 16 * 16 * 3, dtype=np.uint8).reshape(2, 16, 16, 3), fps=1.0)
    return path


def picture(path: Path) -> Path:
    """A small picture."""
    write_png(path, np.zeros((8, 8, 3), dtype=np.uint8))
    return path
