"""Each rule finds the fault that is planted for it, and nothing in a tree without one."""

from pathlib import Path

import pytest
import source_rules
import tree_rules

GOOD = {
    "__init__.py": '"""A package."""\n',
    "core/__init__.py": '"""Words."""\n',
    "core/records.py": '"""Records."""\n\n\ndef record() -> int:\n    """One."""\n    return 1\n',
    "models/family.py": '"""Families."""\n\nimport torch\n\nfrom videosafety.core.records import record\n',
    "evaluate/arms.py": '"""Arms."""\n\nfrom inspect_ai import Task\nfrom videosafety.models import family\n',
    "cli.py": '"""Verbs."""\n\nfrom videosafety.evaluate import arms\n',
}
RULES = {
    "direction": source_rules.direction_faults,
    "engine": source_rules.engine_faults,
    "cycle": source_rules.cycle_faults,
    "ceiling": source_rules.ceiling_faults,
    "docstring": source_rules.docstring_faults,
}
LAZY = 'def go() -> None:\n    """Go."""\n    '
FAULTS = [
    ("direction", "core/up.py", "from videosafety.models import family", "core may not import models"),
    ("direction", "core/lazy.py", LAZY + "import videosafety.cli", "core may not import cli"),
    ("direction", "build/mix.py", "from videosafety.evaluate.arms import x", "build may not import evaluate"),
    ("direction", "evaluate/side.py", "from videosafety.defend import sft", "evaluate may not import defend"),
    ("direction", "video/side.py", "import videosafety.llm.client", "video may not import llm"),
    ("direction", "core/relative.py", "from ..judges import base", "core may not import judges"),
    ("direction", "core/sub/deep.py", "from ...toyworld.world import x", "core may not import toyworld"),
    ("direction", "core/dynamic.py", "from importlib import import_module\nimport_module('videosafety.html.page')",
     "core may not import html"),
    ("direction", "core/typed.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import videosafety.report",
     "core may not import report"),
    ("direction", "__init__.py", "from videosafety.models import family", "videosafety may not import models"),
    ("direction", "misc/things.py", "x = 1", "no row for 'misc'"),
    ("direction", "helpers.py", "x = 1", "no row for 'helpers'"),
    ("engine", "core/tensor.py", "import torch.nn as nn", "torch may be imported in"),
    ("engine", "evaluate/task.py", LAZY + "from torch import nn", "torch may be imported in"),
    ("engine", "toyworld/world.py", "from transformers import AutoModel", "transformers may be imported in"),
    ("engine", "judges/llm.py", "import inspect_ai.model", "inspect_ai may be imported in"),
    ("engine", "build/steps.py", "__import__('ray')", "ray may be imported in"),
    ("engine", "guard/score.py", "from fastapi import FastAPI", "fastapi may be imported in"),
    ("cycle", "core/records.py", "from videosafety.core import other", "videosafety.core.records"),
    ("ceiling", "core/long.py", "x = 1\n" * 400, "403 lines"),
    ("ceiling", "core/tall.py", "def tall() -> None:\n" + "    pass\n" * 60, "tall has 61 lines"),
    ("docstring", "core/dumb.py", "def dumb() -> None:\n    pass", "dumb has no docstring"),
    ("docstring", "core/dumb.py", "class Dumb:\n    pass", "Dumb has no docstring"),
    ("docstring", "core/dumb.py", 'class Said:\n    """Said."""\n    def unsaid(self) -> None:\n        pass',
     "unsaid has no docstring"),
]  # fmt: skip


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "src" / "videosafety"
    for name, text in GOOD.items():
        plant(root, name, text)
    return root


def plant(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("rule", RULES)
def test_a_good_tree_has_no_fault(package: Path, rule: str) -> None:
    assert RULES[rule](package) == []


@pytest.mark.parametrize(("rule", "name", "code", "says"), FAULTS)
def test_a_planted_fault_is_found(package: Path, rule: str, name: str, code: str, says: str) -> None:
    plant(package, "core/other.py", '"""Other."""\n\nfrom videosafety.core.records import record\n')
    plant(package, name, f'"""Planted."""\n\n{code}\n')
    faults = RULES[rule](package)
    assert len(faults) == 1
    assert says in faults[0]


def test_a_module_without_docstring_is_found(package: Path) -> None:
    plant(package, "core/mute.py", "x = 1\n")
    assert source_rules.docstring_faults(package) == [f"{package}/core/mute.py: no module docstring"]


def test_engine_imports_for_types_alone_are_harmless(package: Path) -> None:
    plant(
        package, "core/typed.py", '"""T."""\n\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n'
    )
    assert source_rules.engine_faults(package) == []


def test_machine_paths_are_found(tmp_path: Path) -> None:
    own = Path("/", "clones", "videosafety")
    said = ["see /" + "home/somebody/x", 'open("/' + 'Users/me/y")', "at /" + "clones/videosafety/z"]
    fine = ["https://host/" + "home/page", "a relative data/" + "root/x", "and/or", "<a/" + "root/b>"]
    page = plant(tmp_path, "page.md", "\n".join(said + fine))
    binary = tmp_path / "weights.bin"
    binary.write_bytes(b"\xff\xfe\x00")
    faults = tree_rules.machine_path_faults([page, binary], here=own)
    assert faults == [f"{page}:{number}: names a machine's path" for number in (1, 2, 3)]


def test_large_files_are_found_and_checkpoints_allowed(tmp_path: Path) -> None:
    clip, weights, small = (tmp_path / name for name in ("clip.mp4", "model.safetensors", "page.md"))
    clip.write_bytes(b"0" * (tree_rules.MAX_BYTES + 1))
    weights.write_bytes(b"0" * (tree_rules.MAX_BYTES + 1))
    small.write_bytes(b"0" * tree_rules.MAX_BYTES)
    assert [fault.split(":")[0] for fault in tree_rules.size_faults([clip, weights, small])] == [str(clip)]


def test_two_tests_of_one_name_are_found(tmp_path: Path) -> None:
    for name in ("core/test_x.py", "video/test_x.py", "video/test_y.py", "conftest.py", "core/conftest.py"):
        plant(tmp_path, name, "")
    assert len(tree_rules.test_name_faults(tmp_path)) == 1


def test_files_that_git_does_not_know_do_not_count(tmp_path: Path) -> None:
    plant(tmp_path, "a.md", "")
    assert tree_rules.tracked(tmp_path) == [tmp_path / "a.md"]  # no git here: every file


@pytest.mark.parametrize(("page", "faults"), [
    ("`videosafety.core.records:record` `tests/core/test_r.py::test_it`", []),
    ("`videosafety.core.records:Kept.value` `tests/core/test_r.py`", []),
    ("`videosafety.core.records:gone` `tests/core/test_r.py`", ["no such symbol: videosafety.core.records:gone"]),
    ("`videosafety.core.records:Kept.no` `tests/core/test_r.py`", ["no such symbol: videosafety.core.records:Kept.no"]),
    ("`videosafety.core.gone:record` `tests/core/test_r.py`", ["no such symbol: videosafety.core.gone:record"]),
    ("`videosafety.core.records:record` `tests/gone.py`", ["no such test: tests/gone.py"]),
    ("`videosafety.core.records:LIMIT` `tests/core/test_r.py::no`", ["no such test: tests/core/test_r.py::no"]),
    ("an empty page", ["the map names no symbol or no test"]),
])  # fmt: skip
def test_a_false_paper_map_is_found(package: Path, page: str, faults: list[str]) -> None:
    root = package.parents[1]
    plant(package, "core/records.py", "LIMIT: int = 1\n\n\nclass Kept:\n    value = 1\n\n\ndef record(): ...\n")
    plant(root, "tests/core/test_r.py", "def test_it(): ...\n")
    assert tree_rules.paper_map_faults(page, root=root) == faults
