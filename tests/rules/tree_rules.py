"""Rules over everything that is committed: no path of somebody's machine, no large file, a paper map that is true."""

import re
import subprocess
from pathlib import Path

from source_rules import symbol_exists

MAX_BYTES = 2_000_000
_HOMES = ("home", "root", "Users", "mnt", "scratch", "workspace")
_SYMBOL = re.compile(r"`(videosafety(?:\.\w+)*):([\w.]+)`")
_TEST = re.compile(r"`(tests/[\w/.-]+\.py)(?:::(\w+))?`")


def tracked(root: Path) -> list[Path]:
    """The committed files of a clone; every file where there is no git."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=False)
    if listing.returncode:
        return sorted(path for path in root.rglob("*") if path.is_file())
    names = listing.stdout.decode().split("\0")
    return [root / name for name in names if name and (root / name).is_file()]


def machine_path_faults(files: list[Path], *, here: Path) -> list[str]:
    """Lines that name a home folder or the place where this clone lies."""
    own = here.resolve().parts[1]
    folders = {*_HOMES} | ({own} if own not in ("tmp", "usr", "opt", "var", "private") else set())
    pattern = re.compile(rf"(?<![\w.:/<-])/(?:{'|'.join(sorted(map(re.escape, folders)))})/\w")
    faults = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        lines = enumerate(text.splitlines(), start=1)
        faults += [f"{path}:{number}: names a machine's path" for number, line in lines if pattern.search(line)]
    return faults


def size_faults(files: list[Path]) -> list[str]:
    """Files over the limit; a checkpoint may be larger."""
    large = (path for path in files if path.suffix != ".safetensors" and path.stat().st_size > MAX_BYTES)
    return [f"{path}: {path.stat().st_size} bytes; media and caches are not committed" for path in large]


def test_name_faults(tests: Path) -> list[str]:
    """Test files of the same name: without packages pytest cannot tell them apart."""
    seen: dict[str, Path] = {}
    faults = []
    for path in sorted(tests.rglob("*.py")):
        if path.name in seen and path.name != "conftest.py":
            faults.append(f"{path}: the name of {seen[path.name]}")
        seen[path.name] = path
    return faults


def paper_map_faults(page: str, *, root: Path) -> list[str]:
    """Symbols and tests that the paper map names and the repository does not have; and a map that names none."""
    symbols, tests = _SYMBOL.findall(page), _TEST.findall(page)
    faults = [] if symbols and tests else ["the map names no symbol or no test"]
    faults += [
        f"no such symbol: {module}:{name}" for module, name in symbols if not symbol_exists(root / "src", module, name)
    ]
    for file, test in tests:
        path = root / file
        if not path.is_file() or (test and f"def {test}(" not in path.read_text(encoding="utf-8")):
            faults.append(f"no such test: {file}{'::' + test if test else ''}")
    return faults
