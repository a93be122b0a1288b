"""The rules of docs/architecture.md as functions over a source tree: faults out, as ``file:line: what is wrong``.

Each is run on the repository and, in ``test_rules_can_fail.py``, on a tree with a planted fault.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
CHAPTERS = ("build", "defend", "evaluate", "guard")
ROWS: tuple[tuple[str, ...], ...] = (  # a row imports rows below it only; nothing on a row imports its neighbour
    ("cli", "__main__"),
    ("sweep",),
    ("pipeline", "publish"),
    ("chain",),
    ("settings",),
    ("report",),
    CHAPTERS,
    ("html",),
    ("toyworld",),
    ("judges",),
    ("models",),
    ("video", "llm"),
    ("core",),
)
TORCH_ROOMS = ("models/*", "defend/*", "toyworld/base*.py", "judges/guard_model.py", "build/embed_dinov2.py",
               "evaluate/provider_local.py")  # fmt: skip
ENGINES: dict[str, tuple[str, ...]] = {  # where an engine may be imported, lazily or not
    "torch": TORCH_ROOMS,
    "torchvision": TORCH_ROOMS,
    "transformers": TORCH_ROOMS,
    "inspect_ai": ("llm/*", "evaluate/*"),
    "ray": ("build/engine.py",),
    "fastapi": ("guard/serve.py",),
}


@dataclass(frozen=True)
class Import:
    """One module that a file imports; ``typing_only`` under ``if TYPE_CHECKING``."""

    module: str
    line: int
    typing_only: bool


def sources(package: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Every Python file under a folder, parsed, in a fixed order."""
    for path in sorted(package.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(tree: ast.Module, *, module: str, is_package: bool) -> list[Import]:
    """What a file imports anywhere in it, relative names resolved, ``import_module("literal")`` included."""
    found: list[Import] = []

    def visit(node: ast.AST, typing_only: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                visit(child, True)
            for child in node.orelse:
                visit(child, typing_only)
            return
        found.extend(Import(name, node.lineno, typing_only) for name in _named(node, module, is_package))
        for child in ast.iter_child_nodes(node):
            visit(child, typing_only)

    visit(tree, False)
    return found


def _named(node: ast.AST, module: str, is_package: bool) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = module.split(".")
            parents = parts[: len(parts) - node.level + is_package]
            base = ".".join([*parents, base] if base else parents)
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = ast.unparse(node.func)
        if called in ("import_module", "importlib.import_module", "__import__") and isinstance(node.args[0].value, str):
            return [node.args[0].value]
    return []


def all_imports(package: Path) -> Iterator[tuple[Path, str, Import]]:
    """Each import of each file of a package: the file, its dotted name, the import."""
    for path, tree in sources(package):
        relative = path.relative_to(package.parent).with_suffix("")
        parts = relative.parts[:-1] if path.name == "__init__.py" else relative.parts
        name = ".".join(parts)
        for each in imports(tree, module=name, is_package=path.name == "__init__.py"):
            yield path, name, each


def direction_faults(package: Path) -> list[str]:
    """Imports that go up or sideways, and folders without a row."""
    row_of = {name: row for row, names in enumerate(ROWS) for name in names}
    faults = []
    for path in sorted(package.iterdir()):
        room = path.stem if path.suffix == ".py" else path.name
        is_room = (path.suffix == ".py" and room != "__init__") or (path.is_dir() and any(path.rglob("*.py")))
        if is_room and room not in row_of:
            faults.append(f"{path}: no row for {room!r} in docs/architecture.md")
    for path, name, each in all_imports(package):
        source, target = _room(name, package.name), _room(each.module, package.name)
        if target not in row_of or source == target:
            continue
        if source is None or (source in row_of and row_of[target] <= row_of[source]):
            faults.append(f"{path}:{each.line}: {source or package.name} may not import {target}")
    return faults


def _room(module: str, package: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == package and len(parts) > 1 else None


def engine_faults(package: Path) -> list[str]:
    """Engines imported outside of their rooms; imports for types alone are harmless."""
    faults = []
    for path, _, each in all_imports(package):
        engine = each.module.split(".")[0]
        inside = path.relative_to(package).as_posix()
        if engine in ENGINES and not each.typing_only and not any(fnmatch(inside, room) for room in ENGINES[engine]):
            faults.append(f"{path}:{each.line}: {engine} may be imported in {', '.join(ENGINES[engine])} only")
    return faults


def cycle_faults(package: Path) -> list[str]:
    """Circular imports, lazy ones included."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if path.name == "__init__.py" else parts)] = path
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for _, name, each in all_imports(package):
        target = each.module if each.module in modules else each.module.rpartition(".")[0]
        if target in modules and target != name and not each.typing_only:
            graph[name].add(target)
    faults: list[str] = []
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            faults.append(" -> ".join([*trail[trail.index(name) :], name]))
        elif name not in done:
            for target in sorted(graph[name]):
                walk(target, (*trail, name))
            done.add(name)

    for name in graph:
        walk(name, ())
    return faults


def ceiling_faults(folder: Path) -> list[str]:
    """Files and functions over the ceiling."""
    faults = []
    for path, tree in sources(folder):
        num_lines = len(path.read_text(encoding="utf-8").splitlines())
        if num_lines > MAX_FILE_LINES:
            faults.append(f"{path}: {num_lines} lines; split it by noun")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                length = node.end_lineno - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    faults.append(f"{path}:{node.lineno}: {node.name} has {length} lines")
    return faults


def docstring_faults(package: Path) -> list[str]:
    """Modules, public classes and public functions that do not say what they are."""
    faults = []
    for path, tree in sources(package):
        if not ast.get_docstring(tree):
            faults.append(f"{path}: no module docstring")
        owners: list[ast.Module | ast.ClassDef] = [tree]
        while owners:
            for node in owners.pop().body:
                named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                if not named or node.name.startswith("_") or _is_overload(node):
                    continue
                if not ast.get_docstring(node):
                    faults.append(f"{path}:{node.lineno}: {node.name} has no docstring")
                if isinstance(node, ast.ClassDef):
                    owners.append(node)
    return faults


def _is_overload(node: ast.AST) -> bool:
    return any("overload" in ast.unparse(decorator) for decorator in getattr(node, "decorator_list", []))


def symbol_exists(source_root: Path, module: str, symbol: str) -> bool:
    """Whether ``module:Class.member`` or ``module:name`` is defined in a source tree, without importing it."""
    base = source_root.joinpath(*module.split("."))
    path = next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.exists()), None)
    if path is None:
        return False
    body: list[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    for part in symbol.split("."):
        found = next((node for node in body if part in _defines(node)), None)
        if found is None:
            return False
        body = found.body if isinstance(found, ast.ClassDef) else []
    return True


def _defines(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    return set()
