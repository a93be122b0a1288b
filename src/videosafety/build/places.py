"""Where things lie in the folder of a build, what may be such a folder, and what a killed build leaves behind in it.

    OUT/ledger.sqlite   every row and every call        OUT/splits/    eval, sft, cot, rl and their clips
    OUT/account.json    the account of all rows         OUT/release/   what goes out
    OUT/build.html      all figures, to look at         OUT/review/    pages for people, and their verdicts
    OUT/store/          every clip by its hash

Example:
    >>> check_places(Path("clips"), Path("runs/build"))
"""

import re
import shutil
from pathlib import Path

from videosafety.build.store import MEDIA
from videosafety.core.errors import InputError
from videosafety.core.store import storage_errors

LEDGER, ACCOUNT = "ledger.sqlite", "account.json"
SPLITS, REVIEW, STORE = "splits", "review", "store"
PART = re.compile(r"\.(release|splits)\..+|\.[0-9a-f]{16}\.tmp")  # what is being written, beside its place


def check_places(clips: Path, out: Path) -> None:
    """Raises InputError: OUT holds something else than a build, or OUT and a folder of clips lie inside of each other.

    A manifest names its files, so a build may lie beside it.
    """
    inside, of = out.resolve(), clips.resolve()
    if clips.is_dir() and (inside.is_relative_to(of) or of.is_relative_to(inside)):
        raise InputError("the build and the clips lie inside of each other", where=str(out),
                         fix="give another folder with --out")  # fmt: skip
    if out.exists() and not (out / LEDGER).exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("this folder holds something else than a build", where=str(out),
                         fix="give a new or empty folder with --out")  # fmt: skip


def sweep(out: Path) -> None:
    """Take away what a killed build was writing; nobody else writes here while its ledger is ours."""
    with storage_errors(out):
        for folder in (out, out / SPLITS, out / REVIEW):
            for part in folder.glob(".*.*"):
                if PART.fullmatch(part.name) and part.is_dir() and not part.is_symlink():
                    shutil.rmtree(part)
                elif PART.fullmatch(part.name):
                    part.unlink(missing_ok=True)
        for part in out.glob(f"{STORE}/{MEDIA}/*/*.part"):
            part.unlink(missing_ok=True)
