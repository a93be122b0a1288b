"""The work folder of a stage in progress: whose work it is, and the checkpoint from which it goes on.

A checkpoint counts once every process has written its part; then it is marked, and older ones are removed. A run that
is killed at any moment therefore finds one whole checkpoint, or starts anew.

Example:
    >>> last_complete(Path("runs/a/at_sft.work"), sharded=False)                # doctest: +SKIP
    PosixPath('runs/a/at_sft.work/checkpoint-200')
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from accelerate import PartialState

from videosafety.core.errors import InputError
from videosafety.core.jsonl import read_json
from videosafety.core.store import sync, write_json

COMPLETE = "complete"  # in a checkpoint that was written to its end
IDENTITY = "identity.json"
FAULT_ROWS = "faults.jsonl"


def claim(work: Path, identity: Mapping[str, str]) -> None:
    """Make the folder. Work of another configuration or of other rows is removed: it cannot be resumed."""
    state = PartialState()
    if state.is_main_process:
        mark = work / IDENTITY
        if work.is_dir() and (not mark.is_file() or read_json(mark) != dict(identity)):
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
        write_json(mark, dict(identity))
    state.wait_for_everyone()


def last_complete(work: Path, *, sharded: bool) -> Path | None:
    """The newest checkpoint that was written to its end; others are removed.

    Raises:
        InputError: it was written in shards and this run has none, or the other way round.
    """
    state = PartialState()
    found = sorted(work.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    whole = [folder for folder in found if (folder / COMPLETE).is_file()]
    state.wait_for_everyone()
    if state.is_main_process:
        for folder in set(found) - set(whole):
            shutil.rmtree(folder)
    if whole and sharded != any(whole[-1].glob("pytorch_model_fsdp*")):
        raise InputError(f"this work was {'not ' if sharded else ''}done with sharded weights", where=str(work),
                         fix="launch it as before, or remove the folder to start anew")  # fmt: skip
    return whole[-1] if whole else None


def is_complete(work: Path, step: int) -> bool:
    """Was ``checkpoint-STEP`` written to its end?"""
    return (work / f"checkpoint-{step}" / COMPLETE).is_file()


def mark_complete(work: Path, step: int) -> None:
    """Everything of ``checkpoint-STEP`` is on disk: say so, and remove the others."""
    folder = work / f"checkpoint-{step}"
    for file in folder.rglob("*"):
        if file.is_file():
            sync(file)
    write_json(folder / COMPLETE, {"step": step})
    for other in work.glob("checkpoint-*"):
        if other != folder:
            shutil.rmtree(other)
