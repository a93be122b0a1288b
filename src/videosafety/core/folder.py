"""Write a folder whole or not at all: a checkpoint, a benchmark, anything of several files.

Example:
    >>> write_folder(Path("out"), lambda part: (part / "a.txt").write_text("a"))
    PosixPath('out')
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from videosafety.core.store import storage_errors, sync


def write_folder(folder: Path, fill: Callable[[Path], object]) -> Path:
    """Let ``fill`` write into a new folder beside ``folder``, then put that in its place.

    A crash leaves the old folder, the new one, or (between two renames) neither; never a mixture.

    Raises:
        StorageError: the disk is full or refuses; the old folder stays as it was.
    """
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            part.chmod(0o755)
            fill(part)
            for root, _, names in os.walk(part):
                for name in names:
                    sync(Path(root) / name)
            _replace(folder, part)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _replace(folder: Path, part: Path) -> None:
    old = part.with_name(part.name + ".old")
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
