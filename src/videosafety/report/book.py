"""``run.json``: what was run, with what, on what, and what each stage cost.

Example:
    >>> book = Book.open(Path("runs/a"), name="a", seeds=[0], recipe={})        # doctest: +SKIP
    >>> with book.stage("evaluate"):                                            # doctest: +SKIP
    ...     evaluate(...)
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from videosafety.core.errors import InputError, RecordError
from videosafety.core.jsonl import canonical_json, read_json
from videosafety.core.store import write_json

PACKAGES = ("videosafety", "torch", "torchvision", "transformers", "tokenizers", "av", "inspect-ai", "numpy")


@dataclass
class Book:
    """The content of ``run.json``, kept on the disk after every stage."""

    file: Path
    content: dict[str, Any]

    @classmethod
    def open(cls, folder: Path, *, name: str, seeds: Sequence[int], recipe: Mapping[str, Any]) -> "Book":
        """The book of an earlier attempt at the same recipe, or a new one (also where no stage was finished yet).

        Raises:
            InputError: the folder holds a run of another recipe.
            RecordError: ``run.json`` is no book.
            StorageError: the folder cannot be written.
        """
        file = folder / "run.json"
        recipe = json.loads(canonical_json(recipe))  # as it reads back: a tuple is a list
        if file.is_file():
            content: Any = read_json(file)
            entries = _entries(content, where=str(file))
            if content.get("recipe") != recipe and entries:
                what = f"this folder holds another run ({content.get('name')!r}, {_difference(content, recipe)})"
                raise InputError(what, where=str(folder), fix="give another --out, or remove the folder")
            for entry in entries:
                entry["reused"] = True
            if content.get("recipe") == recipe:
                return cls(file, content)
        content = {
            "name": name,
            "recipe": dict(recipe),
            "seeds": list(seeds),
            "versions": {package: _version(package) for package in PACKAGES},
            "commit": commit(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "hardware": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, "
            f"Python {platform.python_version()}",
            "stages": [],
        }
        write_json(file, content)
        return cls(file, content)

    def finished(self, stage: str) -> bool:
        """Was the stage finished before?"""
        return any(entry["name"] == stage for entry in self.content["stages"])

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run a stage; when it ends well, note this attempt's commit and wall clock, and the largest memory so far."""
        started = time.monotonic()
        yield
        entry = {"name": name, "wall_s": round(time.monotonic() - started, 2),
                 "peak_memory_bytes": peak_memory_bytes(), "commit": commit(), "reused": False}  # fmt: skip
        self.content["stages"] = [one for one in self.content["stages"] if one["name"] != name] + [entry]
        write_json(self.file, self.content)


def peak_memory_bytes() -> int:
    """The largest resident size so far of this process or of any finished child."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def commit() -> str | None:
    """The commit of the clone that this code runs from, ``+`` when tracked files were changed; None without one."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _entries(content: Any, *, where: str) -> list[dict[str, Any]]:
    """The stages of a book that was read."""
    entries = content.get("stages") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "name" in entry for entry in entries):
        raise RecordError("is not the run.json of a run", where=where, fix="give another --out, or remove the folder")
    return entries


def _difference(content: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    before: Mapping[str, Any] = content.get("recipe") or {}
    keys = sorted(key for key in {*before, *recipe} if before.get(key) != recipe.get(key))
    return "other " + ", ".join(keys)
