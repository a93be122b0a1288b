"""What every test shares: one thread, no network hub, hypothesis without a clock, and the folder of real clips."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before anything imports torch
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A deadline is an assertion about time; random seeds make a failure that nobody can repeat.
settings.register_profile("videosafety", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("videosafety")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real test data (``videos/``, ``xstest/``, …), from ``VIDEOSAFETY_TEST_DATA``."""
    folder = os.environ.get("VIDEOSAFETY_TEST_DATA")
    if not folder:
        pytest.skip("real-data test: set VIDEOSAFETY_TEST_DATA to the folder of real clips")
    path = Path(folder)
    assert path.is_dir(), f"VIDEOSAFETY_TEST_DATA={folder} is not a folder"
    return path


@pytest.fixture
def command(capsys, monkeypatch):
    """Run a command line in this process: (exit code, stdout, stderr); never a traceback."""
    from videosafety.cli import main

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["videosafety", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err + out
        return ended.value.code or 0, out, err

    return call
