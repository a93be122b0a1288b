"""``inspect eval videosafety/toy`` builds its benchmark once, and again when the code that makes it has changed."""

from pathlib import Path
from shutil import copytree

import pytest

import videosafety
from videosafety.evaluate import tasks

PACKAGE = Path(videosafety.__file__).parent


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were built."""
    folders: list[Path] = []

    def build(folder: Path, *, size: str, seed: int) -> Path:
        folder.mkdir(parents=True)
        folders.append(folder)
        (folder / tasks.MANIFEST).write_text(f"{size} {seed}")
        return folder / tasks.MANIFEST

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tasks, "build_benchmark", build)
    return folders


def test_a_benchmark_is_built_once_for_each_size_and_seed(built: list[Path]) -> None:
    first = tasks.toy_manifest("small", seed=1)
    assert tasks.toy_manifest("small", seed=1) == first
    assert tasks.toy_manifest("small", seed=2).read_text() == "small 2"
    assert tasks.toy_manifest("full", seed=1).read_text() == "full 1"
    assert len(built) == 3


@pytest.mark.parametrize("changed", ["toyworld/scenes.py", "toyworld/dialogue.yaml", "video/write.py"])
def test_a_benchmark_of_an_older_version_is_not_used(
    built: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    before = tasks.toy_manifest("small", seed=1)
    for room in ("toyworld", "video"):
        copytree(PACKAGE / room, tmp_path / room, ignore=lambda *_: ["bases", "__pycache__"])
    monkeypatch.setattr(tasks, "files", lambda package: tmp_path / package.rpartition(".")[2])
    assert tasks.toy_manifest("small", seed=1) == before
    (tmp_path / changed).write_text((tmp_path / changed).read_text() + "\n")
    assert tasks.toy_manifest("small", seed=1) != before
    assert len(built) == 2
