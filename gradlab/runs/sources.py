"""Which code a result comes from: a hash that changes when code changes that could change a number.

What counts:
- of the analysis' file, all that `compute` (or `run_task`) reaches by name, without docstrings and comments. So a new
  sentence in `check`, another colour in `draw`, or another claim recomputes nothing. `PARAMETERS` do not count where they
  are part of the key anyway: those of the scale for `compute`, those of the task for `run_task`;
- of the files beside it, those that this part imports, whole, and what they import;
- of gradlab, every file, byte for byte, but the rooms that only draw, tell and organise: plotting, report, cli, runs
  (of which the random numbers and the threads count);
- the versions of Python, NumPy, SciPy and of the libraries in `NEEDS`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import platform
import secrets
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from gradlab.runs.verdict import Analysis

SILENT = ("plotting", "report", "cli", "runs")
OF_RUNS = ("runs/plan.py", "runs/threads.py")
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
UNKNOWN = "unknown-"


def code_version(analysis: Analysis) -> str:
    """Hexadecimal; what has no source file, as in a notebook, gets a new one each time: nobody can tell whether it changed."""
    own = _own(analysis)
    if own is None:
        return UNKNOWN + secrets.token_hex(12)
    return hashlib.sha256("\n".join([own, _package(), *_versions(analysis.NEEDS)]).encode()).hexdigest()[:32]


def _own(analysis: Any) -> str | None:
    if isinstance(analysis, ModuleType):
        if not (analysis.__file__ and Path(analysis.__file__).is_file()):
            return None
        split = hasattr(analysis, "tasks")
        path = Path(analysis.__file__)
        tree = _bare(path)
        counted = _reached(tree, "run_task" if split else "compute", () if split else ("PARAMETERS",))
        lines = [ast.dump(node) for node in counted]
        package = analysis.__package__.split(".") if analysis.__package__ else []
        lines += [ast.dump(_bare(other)) for other in _beside(counted, path.parent, package)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    code = getattr(getattr(analysis, "run_task", None) or getattr(analysis, "compute", None), "__code__", None)
    path = Path(getattr(code, "co_filename", "") or "<none>")
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


@cache
def _package() -> str:
    root = Path(__file__).parents[1]
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name.split("/")[0] not in SILENT or name in OF_RUNS:
            found.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def _versions(needs: tuple[str, ...]) -> Iterator[str]:
    yield platform.python_version()
    for name in ("numpy", "scipy", *needs):
        try:
            yield f"{name} {importlib.metadata.version(DISTRIBUTIONS.get(name, name))}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{name} unknown"


def _bare(path: Path) -> ast.Module:
    """The syntax of a file without docstrings."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def _reached(tree: ast.Module, root: str, without: tuple[str, ...]) -> list[ast.stmt]:
    """The statements of a module that count for `root`, in their order; what binds no name counts always."""
    binders: dict[str, list[ast.stmt]] = {}
    queue: list[ast.stmt] = []
    for node in tree.body:
        names = _bound(node)
        if names is None:
            queue.append(node)
        for name in names or ():
            binders.setdefault(name, []).append(node)
    queue += binders.get(root, [])
    counted: list[ast.stmt] = []
    while queue:
        node = queue.pop()
        if any(node is other for other in counted):
            continue
        counted.append(node)
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and part.id not in without:
                queue += binders.get(part.id, [])
    return [node for node in tree.body if any(node is other for other in counted)]


def _bound(node: ast.stmt) -> list[str] | None:
    """The names that a statement binds and does nothing besides; None for any other statement."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        return None if "*" in names else names
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else None
    if targets is None:
        return None
    flat = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [part.id for part in flat if isinstance(part, ast.Name)] if all(isinstance(p, ast.Name) for p in flat) else None


def _beside(nodes: list[ast.stmt], folder: Path, package: list[str]) -> list[Path]:
    """The files of the same folder that these statements import, and what those import, in the order of their names."""
    found: set[Path] = set()
    queue: list[ast.AST] = list(nodes)
    while queue:
        for part in ast.walk(queue.pop()):
            for path in (folder / f"{name}.py" for name in _imported(part, package)):
                if path.is_file() and path not in found:
                    found.add(path)
                    queue.append(_bare(path))
    return sorted(found)


def _imported(node: ast.AST, package: list[str]) -> list[str]:
    """The modules of `package` that an import could mean."""
    if isinstance(node, ast.Import):
        parts = [alias.name.split(".") for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = (package if node.level else []) + (node.module.split(".") if node.module else [])
        parts = [[*base, alias.name] for alias in node.names]
    else:
        return []
    depth = len(package)
    return [names[depth] for names in parts if names[:depth] == package and len(names) > depth]
