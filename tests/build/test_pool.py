"""Workers: one thread each, and a script without a guard is told what it lacks."""

import os
import subprocess
import sys

import pytest

from videosafety.build.pool import SINGLE_THREAD, run_isolated

STARTS = {
    "pool": "list(run_isolated(abs, [-1], workers=2))",
    "one": "Isolated(abs)(-1)",
    "build": "build(load_recipe(RECIPE, BuildRecipe, overrides=[f'labels={folder}/labels.jsonl']),"
             " clips=folder / 'clips', out=folder / 'out')",
}  # fmt: skip
SCRIPT = """
from pathlib import Path
from videosafety.build.build import build
from videosafety.build.pool import Isolated, run_isolated
from videosafety.build.recipe import BuildRecipe
from videosafety.core.recipe import load_recipe
RECIPE, folder = "build_labelled", Path({folder!r})
{start}
"""


@pytest.mark.parametrize("start", STARTS)
def test_a_script_without_a_guard_is_told_so_in_one_sentence(tmp_path, start):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(b"no clip")
    (tmp_path / "labels.jsonl").write_text('{"path": "a.mp4", "caption": "A lawn.", "visual": "safe"}\n')
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(tmp_path), start=STARTS[start]))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1  # of the script itself, and none of its workers
    said = done.stderr.splitlines()[-1]
    assert "a worker process did not start" in said
    assert 'if __name__ == "__main__":' in said


def threads(name):
    return os.environ.get(name)


def test_a_worker_has_one_thread_unless_somebody_said_otherwise(monkeypatch):
    for name in SINGLE_THREAD:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    assert dict(run_isolated(threads, names, workers=1)) == {0: "1", 1: "3", 2: "1"}
