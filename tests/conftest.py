"""What every test shares: one thread, no network hub, hypothesis without a clock, real clips, a real browser."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium, from $CHROMIUM or the path. Under CI its absence is a failure, elsewhere a skip.

    Closed after the module: while Playwright is open its event loop runs, and no evaluation can start one.
    """
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        reason = "no Chromium: install it or set CHROMIUM to its path"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()
