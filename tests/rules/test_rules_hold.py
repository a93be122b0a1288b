"""The rules of docs/architecture.md and CONTRIBUTING.md, held by this repository."""

import subprocess
import sys
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

import pytest
import source_rules
import tree_rules

from videosafety.core.recipe import load_recipe

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "videosafety"
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
LIGHT = ("core", "judges", "video", "html", "report")  # rooms that a machine without torch can use


@pytest.mark.parametrize("rule", [
    source_rules.direction_faults, source_rules.engine_faults, source_rules.cycle_faults, source_rules.ceiling_faults,
    source_rules.docstring_faults,
])  # fmt: skip
def test_the_package(rule: object) -> None:
    assert list(PACKAGE.rglob("*.py"))
    assert rule(PACKAGE) == []  # type: ignore[operator]


def test_the_tests_and_the_benchmarks_keep_the_ceiling() -> None:
    assert source_rules.ceiling_faults(ROOT / "tests") + source_rules.ceiling_faults(ROOT / "benchmarks") == []


def test_no_two_test_files_share_a_name() -> None:
    assert tree_rules.test_name_faults(ROOT / "tests") == []


def test_nothing_names_a_machine_s_path() -> None:
    assert tree_rules.machine_path_faults(tree_rules.tracked(ROOT), here=ROOT) == []


def test_no_large_file_is_committed() -> None:
    assert tree_rules.size_faults(tree_rules.tracked(ROOT)) == []


def test_the_paper_map_is_true() -> None:
    page = (ROOT / "docs" / "paper_map.md").read_text(encoding="utf-8")
    assert tree_rules.paper_map_faults(page, root=ROOT) == []


def test_no_folder_of_tests_is_passed_over(pytestconfig) -> None:
    """Pytest leaves folders of some names out: those of ``build`` were, once."""
    hidden = pytestconfig.getini("norecursedirs")
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    names = {part for folder in folders for part in folder.relative_to(ROOT).parts}
    assert "build" in names
    assert [name for name in sorted(names) if any(fnmatch(name, pattern) for pattern in hidden)] == []


def test_every_recipe_loads() -> None:
    run, built = import_module("videosafety.settings").Recipe, import_module("videosafety.build.recipe").BuildRecipe
    assert RECIPES
    for path in RECIPES:
        load_recipe(path, built if path.name.startswith("build") else run)


def test_importing_the_light_rooms_imports_no_engine() -> None:
    modules = ["videosafety"]
    for room in LIGHT:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            inside = path.relative_to(PACKAGE).as_posix()
            if inside not in source_rules.TORCH_ROOMS and path.name != "__init__.py":
                modules.append("videosafety." + inside.removesuffix(".py").replace("/", "."))
    lines = ["import sys", *(f"import {name}" for name in modules), "print(*sys.modules)"]
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert set(modules) <= set(run.stdout.split())
    assert set(source_rules.ENGINES) & set(run.stdout.split()) == set()
