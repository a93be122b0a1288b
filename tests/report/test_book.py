"""``run.json``: a stage says by which code it was made, also when a run goes on under another."""

import json
from pathlib import Path

import pytest

from videosafety.report import book
from videosafety.report.book import Book


def test_a_stage_keeps_the_commit_that_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, stage in enumerate(("base", "evaluate")):
        monkeypatch.setattr(book, "commit", lambda number=number: f"commit-{number}")
        with Book.open(tmp_path, name="a", seeds=[0], recipe={"name": "a"}).stage(stage):
            pass
    kept = json.loads((tmp_path / "run.json").read_text())
    assert kept["commit"] == "commit-0"
    stages = {entry["name"]: (entry["commit"], entry["reused"]) for entry in kept["stages"]}
    assert stages == {"base": ("commit-0", True), "evaluate": ("commit-1", False)}


def test_a_stage_that_fails_is_not_finished(tmp_path: Path) -> None:
    opened = Book.open(tmp_path, name="a", seeds=[0], recipe={"name": "a"})
    with pytest.raises(RuntimeError), opened.stage("base"):
        raise RuntimeError
    assert not Book.open(tmp_path, name="a", seeds=[0], recipe={"name": "a"}).finished("base")
